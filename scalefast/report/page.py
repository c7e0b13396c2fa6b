"""The page: its sections in their order, and the words around them.

It holds everything itself: style, drawings and pictures. It loads nothing, runs no script, and tells the
browser so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast._version import __version__
from scalefast.evaluation import Difference, Representations
from scalefast.evaluation._run import LoadedRun
from scalefast.evaluation.data import class_labels, class_names, count_split
from scalefast.evaluation.knn import center_and_normalize
from scalefast.evaluation.results import Intervals
from scalefast.report import sections
from scalefast.report.gallery import Strips, Tile, gallery
from scalefast.report.neighbours import Neighbours, find_neighbours, pick_queries
from scalefast.report.projection import align, tsne
from scalefast.report.style import CSS
from scalefast.report.thumbnails import VideoFinder

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["Numbers", "Page"]

NEIGHBOURS, QUERIES, MAP_POINTS = 5, 8, 1000
"""Neighbours of a query, queries, and points of a map (t-SNE is quadratic in them)."""

COMPARED = {"mean": "mean pooling", "ensemble": "SCALE (ensemble)"}
"""What stands side by side in maps and neighbours."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content-Security-Policy: nothing from anywhere."""

ABOUT_RESULTS = (
    "Share of test videos whose class is found. Without SCALE one has mean pooling (the mean of the frozen "
    "backbone's clip features), mean + std (their standard deviation beside it) and max pooling; untrained "
    "is SCALE with the random weights that training started from. Ensemble puts the mean beside SCALE's "
    "refined clips and CLS, as the paper does; recommended is the same with each part scaled to length 1. "
    "All are measured on the same features, splits and probes. The model is that of the last epoch, and "
    "nothing was chosen by test accuracy, but in a row that is called optimistic."
)
ABOUT_INTERVALS = (
    " The last column compares SCALE's recommended representation with the best baseline on the same videos; "
    "which baseline is best was seen on these videos too, which favours the baseline. Intervals hold 95% of "
    "10,000 bootstrap draws of the test videos: where that of a difference holds 0, another draw could turn "
    "the verdict round."
)
ABOUT_MAPS = (
    "placed by t-SNE in the space in which k-NN votes: near points are similar videos, while the sizes of "
    "clusters and the distances between them mean little. Colours are the classes, which neither the map nor "
    "SCALE has seen. Rest the pointer on a point for its name."
)
ABOUT_NEIGHBOURS = (
    "On the left a test video, the first of its class in the store, so not a chosen one. Beside it the "
    "training videos nearest to it, with their cosine similarity in the space in which k-NN votes. ✓ the "
    "same class, ✗ another."
)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Results in one form, wherever they come from."""

    accuracies: Mapping[str, Mapping[str, float]]
    """`{protocol: {representation: accuracy}}`."""
    differences: Mapping[str, Difference]
    """SCALE against the best baseline by protocol, where the interval is known."""
    intervals: Intervals
    """Of the accuracies, where they are known."""
    settings: Mapping[str, Any]
    """`{protocol: {representation: settings}}`, where they are known."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page is about; `html` draws it."""

    run: LoadedRun
    """The model."""
    train: FeatureStore
    """Labelled training videos."""
    test: FeatureStore
    """Labelled test videos."""
    train_vectors: Representations
    """Of the training videos."""
    test_vectors: Representations
    """Of the test videos."""
    numbers: Numbers
    """The results."""
    train_videos: VideoFinder
    """Files of the training videos."""
    test_videos: VideoFinder
    """Files of the test videos."""
    title: str
    """Heading."""

    def html(self) -> str:
        """The whole page."""
        body = [
            f"<h1>{escape(self.title)}</h1>",
            f'<p class="soft">{len(self.test):,} test videos, {len(self.train):,} training videos</p>',
            sections.verdicts(self.numbers.accuracies, self.numbers.differences),
            _bullets(self.numbers.notes),
            self._results(),
            f"<h2>Pretraining</h2>{sections.curves(self._log())}",
            self._maps(),
            self._neighbours(),
            self._origin(),
        ]
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f"<title>{escape(self.title)}</title>\n<style>{CSS}</style></head>\n<body><main>\n"
            + "\n".join(part for part in body if part)
            + "\n</main></body></html>\n"
        )

    def _results(self) -> str:
        counted = {"training": count_split(self.train), "test": count_split(self.test)}
        about = ABOUT_RESULTS + (ABOUT_INTERVALS if self.numbers.differences else "")
        return (
            "<h2>Results</h2>"
            + sections.results(self.numbers.accuracies, self.numbers.differences, self.numbers.intervals)
            + _caption(about)
            + sections.counts(counted)
        )

    def _log(self) -> list[dict[str, Any]]:
        if self.run.record is None:
            return []
        from scalefast.training import load_run

        return load_run(self.run.name).log()

    def _maps(self) -> str:
        count = min(len(self.test), MAP_POINTS)
        rows = torch.linspace(0, len(self.test) - 1, count).round().long().unique()
        if len(rows) < 2:
            return ""
        labels = class_labels(self.test)[rows].tolist()
        placed: list[Tensor] = []
        for name in COMPARED:
            vectors = center_and_normalize(self.test_vectors[name]).cpu()[rows]
            points = tsne(vectors)
            # Neither turn nor mirror image means anything, so the second map is turned like the first.
            placed.append(align(points, to=placed[0]) if placed else points)
        figures = {
            title: [(x, y) for x, y in points.tolist()]
            for title, points in zip(COMPARED.values(), placed, strict=True)
        }
        some = f"{len(rows):,} of {len(self.test):,} test videos"
        which = some if len(rows) < len(self.test) else "The test videos"
        drawn = sections.maps(
            figures,
            labels=labels,
            names={label: self._class(label) for label in set(labels)},
            ids=[self.test.ids[row] for row in rows.tolist()],
        )
        return f"<h2>Map of the test videos, before and after</h2>{drawn}{_caption(f'{which}, {ABOUT_MAPS}')}"

    def _neighbours(self) -> str:
        known, asked = class_labels(self.train), class_labels(self.test)
        if min(len(known), len(asked)) < 2:
            return ""
        found = {
            title: find_neighbours(
                self.train_vectors[name], known, self.test_vectors[name], asked, k=NEIGHBOURS
            )
            for name, title in COMPARED.items()
        }
        strips = Strips(self.test_videos), Strips(self.train_videos)
        queries = [
            (
                Tile(id=self.test.ids[row], name=self._class(int(asked[row])), same=None, similarity=None),
                [(title, self._tiles(near, row)) for title, near in found.items()],
            )
            for row in pick_queries(asked, count=QUERIES)
        ]
        drawn = gallery(queries, query_strip=strips[0], strip=strips[1])
        shares = ", ".join(f"{title} {100 * near.share_of_class:.1f}%" for title, near in found.items())
        remarks = [text for strip in strips for text in strip.remarks()]
        return (
            f"<h2>Nearest neighbours</h2><p>Of the {min(NEIGHBOURS, len(known))} nearest training videos of "
            f"every test video, the share that is of its class: {shares}.</p>"
            + _caption(ABOUT_NEIGHBOURS)
            + _bullets(tuple(dict.fromkeys(remarks)))
            + drawn
        )

    def _tiles(self, near: Neighbours, row: int) -> list[Tile]:
        known, label = class_labels(self.train), int(class_labels(self.test)[row])
        return [
            Tile(
                id=self.train.ids[index],
                name=self._class(int(known[index])),
                same=int(known[index]) == label,
                similarity=similarity,
            )
            for index, similarity in zip(near.rows[row].tolist(), near.similarity[row].tolist(), strict=True)
        ]

    def _class(self, label: int) -> str:
        names = class_names(self.train, self.test)
        return names[label] if names is not None and label < len(names) else f"class {label}"

    def _origin(self) -> str:
        config = (self.run.record or {}).get("config", {})
        keys = ("epochs", "batch_size", "views", "learning_rate", "weight_decay", "seed", "precision")
        penalties = {
            f"L2 penalty, {protocol}": ", ".join(f"{name} {row['l2']:.2g}" for name, row in settings.items())
            for protocol, settings in self.numbers.settings.items()
            if all("l2" in row for row in settings.values())
        }
        known = {
            "run": self.run.name,
            "training store": self.train.path,
            "test store": self.test.path,
            "model": _pairs(self.run.model.config()),
            "weights (sha256)": self.run.weights_hash,
            "pretraining": _pairs({key: config[key] for key in keys if key in config}),
            "backbone": _backbone(self.test),
            "training clips": _clips(self.train),
            "test clips": _clips(self.test),
            "k-NN": "k 20, temperature 0.07, each split centred by its own mean",
            **penalties,
            "scalefast": __version__,
        }
        return f"<h2>Where this comes from</h2>{sections.facts(known)}"


def _caption(text: str) -> str:
    return f'<p class="caption">{escape(text)}</p>'


def _bullets(texts: tuple[str, ...]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _backbone(store: FeatureStore) -> str:
    made_with = store.provenance.get("backbone")
    if not isinstance(made_with, dict):
        return f"{made_with or 'not recorded'}, {store.feature_dim} dimensions"
    weights = str(made_with.get("weights_hash", "not recorded"))[:16]
    return f"{made_with.get('name')}, {store.feature_dim} dimensions, weights {weights}"


def _clips(store: FeatureStore) -> str:
    recipe = store.provenance.get("recipe")
    if isinstance(recipe, dict):
        return _pairs(recipe)
    low, high = int(store.lengths.min()), int(store.lengths.max())
    return f"{low} a video" if low == high else f"{low} to {high} a video"
