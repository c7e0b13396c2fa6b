"""What the page answers, without the page: a searcher, the files of its videos, and cards to show."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scalefast._text import counted
from scalefast.errors import DataError, InputError, MissingExtraError
from scalefast.report.thumbnails import VideoFinder, film_strip
from scalefast.search import Moment, Neighbour, Query, Searcher

__all__ = ["Answer", "Browser", "Card", "parse_seconds"]

SHELF = 12
"""Videos that are shown before anything was asked."""

STRIPS = 1000
"""Film strips that are kept, of about 25 kB each."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One video."""

    id: str
    """Its id in the store; empty for a file that was dropped."""
    name: str
    """What it is called on the page."""
    label: str | None
    """Its class, where it has one."""
    similarity: float | None
    """To the query; None where nothing was asked."""
    moment: Moment | None
    """When in it the query is met, where that is known."""
    picture: str | None
    """Film strip of that moment (or of the whole video) as a `data:` address; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is shown for one question."""

    title: str
    """What was asked."""
    note: str
    """With how many videos it was compared, and how long that took; what could not be shown."""
    query: Card | None
    """What was asked for; None on the shelf."""
    cards: tuple[Card, ...]
    """The videos, nearest first."""


class Browser:
    """Answers with pictures.

    Args:
        searcher: the store and how it is searched.
        videos: what the store was extracted from (folder or list), so that its videos can be shown; None: only
            ids that are themselves paths of files can.
        root: folder to which relative paths of a list belong.

    Raises:
        InputError: there is no such folder or list.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        videos: str | os.PathLike[str] | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        self.searcher = searcher
        assert searcher.index is not None  # made now, not by the first question, and by one thread
        self._finder = VideoFinder(videos, root=root)
        self._strip = lru_cache(maxsize=STRIPS)(_strip)

    def shelf(self) -> Answer:
        """Some videos of the store, evenly spread, to begin with."""
        ids = self.searcher.store.ids
        chosen = dict.fromkeys(ids[index * len(ids) // SHELF] for index in range(SHELF))
        cards = tuple(self._card(name) for name in chosen)
        return Answer(
            title=f"Some of the {len(ids):,} videos", note=self._pictures_note(cards), query=None, cards=cards
        )

    def ask(self, video: str, *, between: tuple[float, float] | None = None, k: int = 12) -> Answer:
        """The videos nearest to a video of the store.

        Args:
            video: its id; the name of any other file is refused, for whoever sees the page may ask.
            between: some seconds of it only.
            k: how many videos.

        Raises:
            InputError: no such video, or no such seconds.
        """
        if video not in self.searcher:
            raise InputError(f"no video of the store has the id {video!r}; drop a file to search for it")
        return self._answer(video, video, between, k)

    def ask_file(self, path: Path, *, between: tuple[float, float] | None = None, k: int = 12) -> Answer:
        """The videos nearest to a video or image file; arguments as `ask`.

        Raises:
            InputError, StoreError, DataError: as `Searcher.query`.
        """
        return self._answer(path, path.name, between, k)

    def _answer(self, what: str | Path, name: str, between: tuple[float, float] | None, k: int) -> Answer:
        searcher, begun = self.searcher, time.perf_counter()
        query = searcher.query(what, between=between)
        ready = time.perf_counter()
        found = searcher.find(query, k=k)
        done = time.perf_counter()
        cards = tuple(self._card(item.id, item) for item in found)
        note = (
            f"{counted(len(searcher.store), 'video')} and the moments of {len(found)}, {searcher.index.kind} search: "
            f"{1e3 * (done - ready):.0f} ms. Reading the query: {ready - begun:.1f} s. {self._pictures_note(cards)}"
        )
        part = "" if between is None else f", {between[0]:.1f} to {between[1]:.1f} s"
        shown = self._asked_card(query, name, between)
        return Answer(title=f"Similar to {name}{part}", note=note.strip(), query=shown, cards=cards)

    def _asked_card(self, query: Query, name: str, between: tuple[float, float] | None) -> Card:
        if query.row is not None:
            return self._card(query.name, between=between)
        strip = self._strip(Path(query.name), between)
        return Card(id="", name=name, label=None, similarity=None, moment=None, picture=strip)

    def _card(
        self, video: str, item: Neighbour | None = None, *, between: tuple[float, float] | None = None
    ) -> Card:
        moment = item.moments[0] if item is not None and item.moments else None
        if moment is not None:
            between = (moment.start, moment.end)
        path = self._finder.find(video)
        return Card(
            id=video,
            name=video,
            label=self.searcher.class_name(video),
            similarity=None if item is None else item.similarity,
            moment=moment,
            picture=None if path is None else self._strip(path, between),
        )

    def _pictures_note(self, cards: tuple[Card, ...]) -> str:
        missing = sum(card.picture is None for card in cards)
        if not missing:
            return ""
        if not self._finder.given:
            return "No pictures: say where the videos are (--videos)."
        return f"{missing} of these videos were not found or cannot be decoded."


def _strip(path: Path, between: tuple[float, float] | None) -> str | None:
    """A film strip; None where the file cannot be decoded."""
    try:
        return film_strip(path, between=between)
    except (DataError, MissingExtraError):
        return None


def parse_seconds(text: str) -> tuple[float, float] | None:
    """`"2-5.5"` -> (2.0, 5.5); None for nothing.

    Raises:
        InputError: of another form.
    """
    if not text.strip():
        return None
    numbers = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(?:-|to)\s*(\d+(?:\.\d*)?)\s*s?\s*", text)
    if numbers is None:
        raise InputError(f"expected seconds as 2-5.5, got {text!r}")
    return float(numbers[1]), float(numbers[2])
