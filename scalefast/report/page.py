"""The page: its sections in their order.

It holds everything itself: style, drawings and pictures. It loads nothing, runs no script, and tells the
browser so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from scalefast._files import write_atomically
from scalefast._text import counted
from scalefast.evaluation import Difference
from scalefast.evaluation._run import LoadedRun
from scalefast.evaluation.comparison import summary, verdict
from scalefast.evaluation.data import count_split
from scalefast.evaluation.results import Intervals, check_place
from scalefast.report import figures, sections, words
from scalefast.report.drawing import Drawing
from scalefast.report.figures import write_figures
from scalefast.report.findings import COMPARED, NEIGHBOURS, Findings
from scalefast.report.origin import origin
from scalefast.report.style import CSS
from scalefast.report.videos import Videos

__all__ = ["Numbers", "Page"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content-Security-Policy: nothing from anywhere."""


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
    """What the page is about; `html` draws it, `to_dict` says it."""

    run: LoadedRun
    """The model."""
    findings: Findings
    """The two splits, and what is found in them."""
    numbers: Numbers
    """The results."""
    videos: Videos
    """Pictures of them."""
    title: str
    """Heading."""

    def html(self) -> str:
        """The whole page."""
        numbers, found = self.numbers, self.findings
        about = f"{counted(len(found.test), 'test video')}, {counted(len(found.train), 'training video')}"
        body = [
            f"<h1>{escape(self.title)}</h1>",
            f'<p class="soft">{about}</p>',
            sections.verdicts(numbers.accuracies, numbers.differences),
            _bullets(self.notes),
            self._results(),
            self._failures(),
            self._maps(),
            self._neighbours(),
            self._curves(),
            f"<h2>Where this comes from</h2>{sections.facts(origin(self.run, found, numbers.settings))}",
        ]
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f"<title>{escape(self.title)}</title>\n<style>{CSS}</style></head>\n<body><main>\n"
            + "\n".join(part for part in body if part)
            + "\n</main></body></html>\n"
        )

    def save(self, out: str | os.PathLike[str], *, figures: str | os.PathLike[str] | None = None) -> Path:
        """Write the page, whole or not at all, and before it every drawing as PNG and SVG into `figures`."""
        check_place(out)
        if figures is not None:
            write_figures(figures, self.drawings)
        write_atomically(Path(out), self.html().encode())
        return Path(out)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the numbers and sentences of the page, the coordinates of its maps, not its pictures."""
        numbers = self.numbers
        values = {
            "title": self.title,
            "summary": summary(numbers.differences),
            "verdicts": {
                name: verdict(name, row, numbers.differences.get(name))
                for name, row in numbers.accuracies.items()
            },
            "notes": list(self.notes),
            "accuracies": numbers.accuracies,
            "intervals": numbers.intervals,
            "differences": {name: vars(value) for name, value in numbers.differences.items()},
            **self.findings.to_dict(),
        }
        return _without_nan(values)

    @cached_property
    def drawings(self) -> dict[str, Drawing]:
        """All drawings of the page, by name."""
        return {
            **figures.intervals(self.numbers.accuracies, self.numbers.intervals),
            **figures.matrix(self.findings),
            **figures.maps(self.findings),
            **figures.curves(self._log()),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: notes on the results, and where the pictures show something else."""
        if not self.findings.comparable:
            return self.numbers.notes
        row = self.numbers.accuracies.get("knn", {})
        remarks = [
            f"Failures, confusions and neighbours are those of this one run, whose k-NN accuracy by {title} is "
            f"{100 * near.accuracy:.1f}%; the results say {100 * row[name]:.1f}%, so they are of other runs too."
            for (name, near), title in zip(self.findings.neighbours.items(), COMPARED.values(), strict=True)
            if name in row and abs(row[name] - near.accuracy) > 1e-9
        ]
        return (*self.numbers.notes, *remarks[-1:])

    def _results(self) -> str:
        counted = {"training": count_split(self.findings.train), "test": count_split(self.findings.test)}
        numbers = self.numbers
        drawing = self.drawings["intervals"]
        return (
            "<h2>Results</h2>"
            + f'<div class="wide">{sections.figure(drawing)}{sections.legend(drawing.legend)}</div>'
            + sections.results(numbers.accuracies, numbers.differences, numbers.intervals)
            + _caption(words.ABOUT_RESULTS + (words.ABOUT_INTERVALS if numbers.differences else ""))
            + sections.counts(counted)
        )

    def _failures(self) -> str:
        found = self.findings
        if not found.comparable:
            return ""
        near, total = found.neighbours["recommended"], len(found.test)
        matrix = self.drawings["confusion"]
        shown = self.videos.gallery(found.failures, mistakes=True)
        hidden = len(found.classes) - len(found.matrix[0])
        some = f" The {len(found.matrix[0])} classes with most mistakes." if hidden else ""
        return (
            f"<h2>Failures first</h2><p>k-NN on SCALE's recommended representation is wrong about "
            f"{len(near.wrong):,} of {counted(total, 'test video')}.</p>"
            + sections.classes(found.classes, name=found.class_name)
            + f'<div class="matrix" style="max-width:{matrix.width:.0f}px">{sections.figure(matrix)}</div>'
            + _caption(words.ABOUT_MATRIX + some)
            + (_caption(words.ABOUT_FAILURES) + shown if found.failures else "")
        )

    def _maps(self) -> str:
        found = self.findings
        drawn = {name: self.drawings[f"map-{name}"] for name in found.maps}
        if not drawn:
            return ""
        tips, remarks = self.videos.tips()
        pair = "".join(
            sections.figure(drawing, heading=COMPARED[name], above=sections.spots(drawing, tips))
            for name, drawing in drawn.items()
        )
        count, total = len(found.map_rows), len(found.test)
        which = f"{count:,} of {counted(total, 'test video')}" if count < total else "The test videos"
        return (
            f'<h2>Map of the test videos, before and after</h2><div class="pair map">{pair}</div>'
            + sections.legend(next(iter(drawn.values())).legend)
            + _caption(f"{which}, {words.ABOUT_MAPS}")
            + _bullets(remarks)
        )

    def _neighbours(self) -> str:
        found = self.findings
        if not found.comparable:
            return ""
        shares = ", ".join(
            f"{title} {100 * found.neighbours[name].share_of_class(nearest=NEIGHBOURS):.1f}%"
            for name, title in COMPARED.items()
        )
        return (
            f"<h2>Nearest neighbours</h2><p>Of the {min(NEIGHBOURS, len(found.known))} nearest training videos "
            f"of every test video, the share that is of its class: {shares}.</p>"
            + _caption(words.ABOUT_NEIGHBOURS)
            + self.videos.gallery(found.queries)
            + _bullets(self.videos.remarks())
        )

    def _curves(self) -> str:
        drawn = {name: self.drawings[name] for name in figures.GROUPS if name in self.drawings}
        if not drawn:
            missing = "No log: the model comes from no run folder, or the run logged nothing."
            return f'<h2>Pretraining</h2><p class="soft">{missing}</p>'
        charts = "".join(
            f"<div>{sections.figure(drawing, heading=figures.GROUPS[name][0])}{sections.legend(drawing.legend)}</div>"
            for name, drawing in drawn.items()
        )
        return f'<h2>Pretraining</h2><div class="pair">{charts}</div>'

    def _log(self) -> list[dict[str, Any]]:
        if self.run.record is None:
            return []
        from scalefast.training import load_run

        return load_run(self.run.name).log()


def _without_nan(value: Any) -> Any:
    """Nested dicts and sequences with None for numbers that JSON does not have: intervals that are not known."""
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _caption(text: str) -> str:
    return f'<p class="caption">{escape(text)}</p>'


def _bullets(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in dict.fromkeys(texts))
    return f'<ul class="notes">{items}</ul>' if items else ""
