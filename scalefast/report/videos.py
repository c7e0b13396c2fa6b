"""The videos themselves: galleries of neighbours that play, and pictures for the points of a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import islice

from scalefast.report.figures import map_order
from scalefast.report.findings import COMPARED, NEIGHBOURS, Findings
from scalefast.report.gallery import Pictures, Tile, gallery
from scalefast.report.neighbours import Neighbours
from scalefast.report.thumbnails import VideoFinder, film_strip, still

__all__ = ["Videos"]

MAP_PICTURES = 200
"""Points of the maps that show a picture; the others show their names."""


@dataclass(frozen=True, kw_only=True)
class Videos:
    """Findings, shown by their videos."""

    findings: Findings
    """The two splits, and what is found in them."""
    train: VideoFinder
    """Files of the training videos."""
    test: VideoFinder
    """Files of the test videos."""

    def gallery(self, rows: Sequence[int], *, mistakes: bool = False) -> str:
        """Test videos with their nearest training videos, by each representation; with `mistakes` also what each
        is taken for."""
        found = self.findings
        queries = [
            (
                Tile(
                    id=found.test.ids[row],
                    name=found.class_name(int(found.asked[row])),
                    same=None,
                    similarity=None,
                    remark=self._mistake(row) if mistakes else "",
                ),
                [(title, self._tiles(found.neighbours[name], row)) for name, title in COMPARED.items()],
            )
            for row in rows
        ]
        return gallery(queries, query_strip=self._strips[0], strip=self._strips[1])

    def tips(self) -> tuple[list[str], list[str]]:
        """What each dot of a map shows under the pointer, and remarks on pictures that are not there."""
        found = self.findings
        pictures = Pictures(self.test, still)
        every = -(-len(found.map_rows) // MAP_PICTURES)
        tips = []
        for point in map_order(found):
            row = found.map_rows[point]
            picture = pictures(found.test.ids[row]) if point % every == 0 else None
            image = f'<img src="{picture}" alt="">' if picture else ""
            name = escape(found.class_name(int(found.asked[row])))
            tips.append(f"{image}<strong>{name}</strong><br>{escape(found.test.ids[row])}")
        return tips, pictures.remarks()

    def remarks(self) -> list[str]:
        """What a reader should know of pictures that are missing from the galleries so far."""
        return [remark for pictures in self._strips for remark in pictures.remarks()]

    @cached_property
    def _strips(self) -> tuple[Pictures, Pictures]:
        """Of test videos and of training videos."""
        return Pictures(self.test, film_strip), Pictures(self.train, film_strip)

    def _mistake(self, row: int) -> str:
        near = self.findings.neighbours["recommended"]
        said = self.findings.class_name(int(near.predicted[row]))
        return f"taken for {said}; {100 * near.support[row]:.0f}% of the votes for its own class"

    def _tiles(self, near: Neighbours, row: int) -> list[Tile]:
        found = self.findings
        nearest = zip(
            near.rows[row].tolist(), near.same[row].tolist(), near.similarity[row].tolist(), strict=True
        )
        return [
            Tile(
                id=found.train.ids[index],
                name=found.class_name(int(found.known[index])),
                same=same,
                similarity=similarity,
            )
            for index, same, similarity in islice(nearest, NEIGHBOURS)
        ]
