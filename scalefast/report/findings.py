"""What the page shows besides the results: failures, neighbours and maps, computed once from the vectors.

Legend: `N` training videos, `M` test videos.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast.evaluation import Representations
from scalefast.evaluation.data import class_labels, class_names
from scalefast.evaluation.knn import center_and_normalize
from scalefast.report.failures import ClassRow, class_rows, confusion
from scalefast.report.neighbours import Neighbours, find_neighbours, pick_queries
from scalefast.report.projection import align, tsne

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["COMPARED", "Findings"]

COMPARED = {"mean": "mean pooling", "recommended": "SCALE"}
"""What stands side by side in maps and neighbours."""

NEIGHBOURS, FAILURES, QUERIES = 5, 6, 6
"""Neighbours of a query, failures that are shown, and other queries."""

MAP_POINTS, MATRIX_CLASSES = 1000, 30
"""Points of a map (t-SNE is quadratic in them), and classes of a matrix that can still be read."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Two splits with their vectors, and what is found in them, each when it is first asked for."""

    train: FeatureStore
    """Labelled training videos."""
    test: FeatureStore
    """Labelled test videos."""
    train_vectors: Representations
    """Of the training videos."""
    test_vectors: Representations
    """Of the test videos."""

    @cached_property
    def known(self) -> Tensor:
        """`[N]` int64: classes of the training videos."""
        return class_labels(self.train)

    @cached_property
    def asked(self) -> Tensor:
        """`[M]` int64: classes of the test videos."""
        return class_labels(self.test)

    @property
    def comparable(self) -> bool:
        """Whether both splits have the two videos that centring each by its own mean needs."""
        return min(len(self.known), len(self.asked)) >= 2

    @cached_property
    def neighbours(self) -> Mapping[str, Neighbours]:
        """Nearest training videos of every test video, and their votes, by representation."""
        return {
            name: find_neighbours(self.train_vectors[name], self.known, self.test_vectors[name], self.asked)
            for name in COMPARED
        }

    @cached_property
    def classes(self) -> list[ClassRow]:
        """The classes, those that fail most first."""
        before, after = (self.neighbours[name].predicted for name in COMPARED)
        return class_rows(self.asked, after, before)

    @cached_property
    def matrix(self) -> tuple[list[int], list[list[int]]]:
        """Classes and how often each was taken for each, by SCALE's representation; of many classes those with
        most mistakes."""
        mistakes = sorted(self.classes, key=lambda row: (row.right - row.videos, row.label))
        labels = sorted(row.label for row in mistakes[:MATRIX_CLASSES])
        predicted = self.neighbours["recommended"].predicted
        return labels, confusion(self.asked, predicted, classes=torch.tensor(labels)).tolist()

    @cached_property
    def failures(self) -> list[int]:
        """Rows of the worst failures that are shown."""
        return self.neighbours["recommended"].wrong[:FAILURES]

    @cached_property
    def queries(self) -> list[int]:
        """Rows of test videos that nobody chose: the first of a class each, in the order of the store."""
        return pick_queries(self.asked, count=QUERIES)

    @cached_property
    def map_rows(self) -> list[int]:
        """Rows of the test videos that are on the maps, evenly spread."""
        count = min(len(self.test), MAP_POINTS)
        return torch.linspace(0, len(self.test) - 1, count).round().long().unique().tolist()

    @cached_property
    def maps(self) -> Mapping[str, list[tuple[float, float]]]:
        """Coordinates of the `map_rows` by representation; none where there is a single video."""
        if len(self.map_rows) < 2:
            return {}
        placed: dict[str, Tensor] = {}
        for name in COMPARED:
            points = tsne(center_and_normalize(self.test_vectors[name]).cpu()[self.map_rows])
            # Neither turn nor mirror image means anything, so the second map is turned like the first.
            placed[name] = align(points, to=next(iter(placed.values()))) if placed else points
        return {name: [(x, y) for x, y in points.tolist()] for name, points in placed.items()}

    def class_name(self, label: int) -> str:
        """Name of a class."""
        names = class_names(self.train, self.test)
        return names[label] if names is not None and label < len(names) else f"class {label}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: everything but the pictures."""
        if not self.comparable:
            return {}
        labels, counts = self.matrix
        return {
            "knn": {name: near.accuracy for name, near in self.neighbours.items()},
            "confusion": {"classes": [self.class_name(label) for label in labels], "counts": counts},
            "classes": [self._class_dict(row) for row in self.classes],
            "failures": [self._video_dict(row) for row in self.neighbours["recommended"].wrong],
            "share_of_class_among_neighbours": {
                name: near.share_of_class(nearest=NEIGHBOURS) for name, near in self.neighbours.items()
            },
            "maps": {
                name: [
                    {"id": self.test.ids[row], "x": x, "y": y}
                    for row, (x, y) in zip(self.map_rows, points, strict=True)
                ]
                for name, points in self.maps.items()
            },
        }

    def _class_dict(self, row: ClassRow) -> dict[str, Any]:
        other = None if row.taken_for is None else self.class_name(row.taken_for)
        return {"class": self.class_name(row.label), **asdict(row), "taken_for": other}

    def _video_dict(self, row: int) -> dict[str, Any]:
        near = self.neighbours["recommended"]
        nearest = zip(near.rows[row].tolist(), near.similarity[row].tolist(), strict=True)
        return {
            "id": self.test.ids[row],
            "class": self.class_name(int(self.asked[row])),
            "taken_for": self.class_name(int(near.predicted[row])),
            "support": float(near.support[row]),
            "neighbours": [
                {
                    "id": self.train.ids[index],
                    "class": self.class_name(int(self.known[index])),
                    "similarity": similarity,
                }
                for index, similarity in itertools.islice(nearest, NEIGHBOURS)
            ],
        }
