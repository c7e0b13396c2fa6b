"""`search` for one question, `Searcher` for many: the nearest videos of a store, with the seconds that are near."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._run import default_device, load, open_store
from scalefast.evaluation.representations import (
    REPRESENTATIONS,
    Representation,
    represent_as,
    represent_sets,
)
from scalefast.search.index import VectorIndex, build_index, check_faiss
from scalefast.search.kept import index_source, kept_index
from scalefast.search.moments import Moment, clip_vectors, nearest_moments
from scalefast.search.query import (
    Query,
    Seconds,
    query_from_file,
    query_from_store,
    store_backbone,
)

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["Neighbour", "Searcher", "search"]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """One video that was found."""

    rank: int
    """1 for the nearest."""
    id: str
    """Its id in the store."""
    similarity: float
    """Cosine of the two representations, in [-1, 1]."""
    label: str | None
    """Name of its class, or the number of a class without a name; None where it has no class."""
    moments: tuple[Moment, ...] = ()
    """When in it the query's clips are most nearly met, best first; empty where the store does not know the
    seconds of its clips."""


class Searcher:
    """The videos of a store, ready to be searched.

    Args:
        run: run folder, folder or hub id of a saved model, or a model.
        store: where to search.
        representation: by which videos are compared.
        index: folder in which the index is kept: built and written there by the first use, read by every
            other. Up to `EXACT_LIMIT` videos it compares all, above them it is an inverted file of faiss.
            None: nothing is kept and every video is compared, which for a few questions is quicker than
            building an inverted file of any size.
        backbone: for files, if the store's backbone cannot be found by its recorded name: its name, folder or
            hub id, or the backbone itself.
        device: where to compute; None: the GPU if there is one.
        say: is told what takes long.

    Raises:
        InputError: the run or an option does not fit. StoreError: the store is of another backbone than the
            run, or the kept index of another run, store or representation. DataError: a store or model is
            damaged. MissingExtraError: an inverted file without faiss.
    """

    def __init__(
        self,
        run: str | os.PathLike[str] | SCALE,
        store: str | os.PathLike[str] | FeatureStore,
        *,
        representation: Representation = "recommended",
        index: str | os.PathLike[str] | None = None,
        backbone: str | os.PathLike[str] | FrozenBackbone | None = None,
        device: torch.device | str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if representation not in REPRESENTATIONS:
            raise InputError(
                f"representation must be one of {', '.join(REPRESENTATIONS)}, got {representation!r}"
            )
        self.representation = representation
        self.device = default_device(device)
        self.store = open_store(store)
        self._run = load(run, device=self.device)
        self._run.check_store(self.store)
        self._rows = {name: row for row, name in enumerate(self.store.ids)}
        self._backbone = backbone
        self._encoder: FrozenBackbone | None = None
        self._folder = None if index is None else Path(index)
        if index is not None:
            check_faiss(len(self.store))
        self._say = say

    @cached_property
    def index(self) -> VectorIndex:
        """The vectors of all videos; made, or read from its folder, when it is first needed."""
        if self._folder is None:
            return build_index(self._vectors(), kind="exact")
        source = index_source(self._run, self.store, self.representation)
        return kept_index(self._folder, source=source, vectors=self._vectors, say=self._say)

    def __contains__(self, video: object) -> bool:
        """Whether a video of the store has this id."""
        return video in self._rows

    def _vectors(self) -> Tensor:
        return represent_as(
            self._run.model, self.store, representation=self.representation, device=self.device
        )

    def query(self, what: str | os.PathLike[str], *, between: Seconds | None = None) -> Query:
        """The clips of what is searched for.

        Args:
            what: id of a video of the store, else a video or image file. A file is decoded into clips by the
                store's own recipe and goes through the backbone that made the store.
            between: some seconds of it only.

        Raises:
            InputError: neither an id nor a file, or no such seconds. StoreError: the store does not say how
                its features were made. DataError: the file cannot be decoded.
        """
        name = os.fspath(what)
        if name in self._rows:
            return query_from_store(self.store, self._rows[name], between=between)
        if not Path(name).is_file():
            raise InputError(_unknown_query(name, self.store))
        if self._encoder is None:
            self._encoder = store_backbone(self._backbone, self.store, self.device)
        return query_from_file(Path(name), self.store, self._encoder, between=between)

    def find(self, query: Query, *, k: int = 5, moments: int = 1) -> tuple[Neighbour, ...]:
        """The k videos with the largest cosine similarity, nearest first, equals in the order of the store.

        Args:
            query: from `query`; a video of the store is left out of its own answer.
            k: how many; fewer where the store holds fewer.
            moments: of each video that is found, at most so many.

        Raises:
            InputError: k below 1, or moments below 0.
        """
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        if moments < 0:
            raise InputError(f"moments must be at least 0, got {moments}")
        features, positions = query.features.to(self.device), query.positions.to(self.device)
        with torch.inference_mode():
            vector = represent_sets(self._run.model, features[None], positions[None])[self.representation][0]
        similarity, rows = self.index.nearest(vector, k=k + 1)
        found = [
            pair for pair in zip(rows.tolist(), similarity.tolist(), strict=True) if pair[0] != query.row
        ]
        asked = self._clips(features, positions)
        return tuple(
            Neighbour(
                rank=place,
                id=self.store.ids[row],
                similarity=min(max(value, -1.0), 1.0),
                label=class_name(self.store, row),
                moments=self._moments(query, asked, row, moments),
            )
            for place, (row, value) in enumerate(found[:k], start=1)
        )

    def class_name(self, video: str) -> str | None:
        """Name of the class of a video of the store, by its id; None where it has no class."""
        return class_name(self.store, self._rows[video])

    def _moments(self, query: Query, asked: Tensor, row: int, count: int) -> tuple[Moment, ...]:
        if count == 0 or self.store.clips is None:
            return ()
        found = query_from_store(self.store, row)
        assert found.times is not None
        vectors = self._clips(found.features.to(self.device), found.positions.to(self.device))
        return nearest_moments(asked, query.times, vectors, found.times, count=count)

    def _clips(self, features: Tensor, positions: Tensor) -> Tensor:
        return clip_vectors(self._run.model, features, positions, representation=self.representation)


def search(
    run: str | os.PathLike[str] | SCALE,
    store: str | os.PathLike[str] | FeatureStore,
    *,
    query: str | os.PathLike[str],
    between: Seconds | None = None,
    k: int = 5,
    moments: int = 1,
    representation: Representation = "recommended",
    index: str | os.PathLike[str] | None = None,
    backbone: str | os.PathLike[str] | FrozenBackbone | None = None,
    device: torch.device | str | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Neighbour, ...]:
    """The k videos of a store with the largest cosine similarity to a video, nearest first.

    `Searcher(run, store, ...).find(searcher.query(query, between=between), k=k, moments=moments)`: arguments and
    errors are those of `Searcher`, `Searcher.query` and `Searcher.find`.
    """
    searcher = Searcher(
        run,
        store,
        representation=representation,
        index=index,
        backbone=backbone,
        device=device,
        say=say,
    )
    return searcher.find(searcher.query(query, between=between), k=k, moments=moments)


def class_name(store: FeatureStore, row: int) -> str | None:
    """Name of a video's class (its number where classes have no names); None without one class a video."""
    if store.labels is None or store.labels.ndim != 1 or store.labels.dtype != torch.int64:
        return None
    label = int(store.labels[row])
    return store.classes[label] if store.classes is not None else str(label)


def _unknown_query(query: str, store: FeatureStore) -> str:
    import difflib

    near = difflib.get_close_matches(query, store.ids, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"ids look like {store.ids[0]!r}"
    return f"{query!r} is neither a file nor the id of a video in {store.path}; {hint}"
