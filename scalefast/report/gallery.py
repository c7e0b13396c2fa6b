"""Nearest neighbours as rows of tiles that play, where the videos are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from scalefast.errors import DataError, MissingExtraError
from scalefast.report.thumbnails import VideoFinder

__all__ = ["Pictures", "Tile", "gallery"]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One video in a row of neighbours."""

    id: str
    """Its id."""
    name: str
    """Name of its class."""
    same: bool | None
    """Whether that is the class of the query; None for the query itself."""
    similarity: float | None
    """Cosine; None for the query itself."""
    remark: str = ""
    """What else is to be said of it."""


class Pictures:
    """Pictures by id, decoded when asked for, each once; counts what could not be had, and why.

    Args:
        finder: where the videos are.
        make: from a file to a `data:` address.
    """

    def __init__(self, finder: VideoFinder, make: Callable[[Path], str]) -> None:
        self._finder, self._picture = finder, make
        self._made: dict[str, str | None] = {}
        self.missing: list[str] = []
        """Ids of videos that were not found."""
        self.failed: list[str] = []
        """Messages of videos that could not be decoded."""
        self.unavailable: str | None = None
        """Why nothing can be decoded here, if so."""

    def __call__(self, video_id: str) -> str | None:
        """A `data:` address, or None."""
        if video_id not in self._made:
            self._made[video_id] = self._make(video_id)
        return self._made[video_id]

    def _make(self, video_id: str) -> str | None:
        path = self._finder.find(video_id)
        if path is None:
            self.missing.append(video_id)
            return None
        try:
            return self._picture(path)
        except MissingExtraError as error:
            self.unavailable = str(error)
        except DataError as error:
            self.failed.append(str(error))
        return None

    def remarks(self) -> list[str]:
        """What a reader should know of pictures that are not there."""
        told = []
        if self.unavailable:
            told.append(f"No thumbnails: {self.unavailable}.")
        if self.missing and not self._finder.given:
            told.append("No thumbnails: the videos were not given to the report (--videos, --train-videos).")
        elif self.missing:
            told.append(
                f"No thumbnails of {len(self.missing)} of these {len(self._made)} videos: the files were not "
                f"found (for example {self.missing[0]!r}). Give the report the videos that the store was "
                f"extracted from (--videos and --train-videos)."
            )
        if self.failed:
            told.append(
                f"{len(self.failed)} of these videos could not be decoded (for example {self.failed[0]})."
            )
        return told


def gallery(
    queries: Sequence[tuple[Tile, Sequence[tuple[str, Sequence[Tile]]]]],
    *,
    query_strip: Callable[[str], str | None],
    strip: Callable[[str], str | None],
) -> str:
    """Queries, each with rows of neighbours by different representations.

    Args:
        queries: the query, and for each representation its name and neighbours, nearest first.
        query_strip: picture of a test video.
        strip: picture of a training video.
    """
    blocks = []
    for query, rows in queries:
        lines = "".join(
            f'<div class="row"><div class="name">{escape(name)}</div>'
            + "".join(_tile(tile, strip(tile.id)) for tile in tiles)
            + "</div>"
            for name, tiles in rows
        )
        blocks.append(
            f'<div class="query"><div>{_tile(query, query_strip(query.id))}</div><div>{lines}</div></div>'
        )
    return "".join(blocks)


def _tile(tile: Tile, picture: str | None) -> str:
    name, title = escape(tile.name), escape(tile.id, quote=True)
    image = f'<div class="film"><img src="{picture}" alt="frames of {title}"></div>' if picture else ""
    remark = f'<div class="remark">{escape(tile.remark)}</div>' if tile.remark else ""
    kind, head = "", ""
    if tile.same is not None and tile.similarity is not None:
        kind = " same" if tile.same else " other"
        # A sign besides the colour, for those who do not tell these two apart.
        sign = "✓" if tile.same else "✗"
        head = f'<div class="head"><span class="mark">{sign}</span><span>{tile.similarity:.2f}</span></div>'
    return (
        f'<div class="tile{kind}">{image}{head}<div class="class">{name}</div>'
        f'<div class="id" title="{title}">{escape(tile.id)}</div>{remark}</div>'
    )
