"""The two splits of an evaluation: what is refused, what is only said, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scalefast._text import counted
from scalefast.errors import InputError
from scalefast.evaluation._overlap import find_overlap

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = [
    "SplitCounts",
    "check_labels",
    "check_splits",
    "class_labels",
    "class_names",
    "count_split",
    "is_regression",
    "regression_targets",
]


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """How many videos a number speaks of."""

    listed: int | None
    """Files in the list that was extracted; None where the store was not made by extraction."""
    lost: int | None
    """Of these, bad or missing: not in the store, so not in any accuracy."""
    short: int | None
    """Of these, shorter than one clip; they are used."""
    used: int
    """Videos in the store, all of which are used."""
    clips: int
    """Clips of these videos."""
    classes: int | None
    """Classes that occur among them; None where labels are numbers."""


def count_split(store: FeatureStore) -> SplitCounts:
    """Counts of one split, from its store and the ledger of its extraction."""
    ledger = store.ledger
    statuses = None if ledger is None else [row["status"] for row in ledger]
    return SplitCounts(
        listed=None if statuses is None else len(statuses),
        lost=None if statuses is None else sum(status in ("bad", "missing") for status in statuses),
        short=None if statuses is None else statuses.count("short"),
        used=len(store),
        clips=int(store.lengths.sum()),
        classes=None if is_regression(store) else len(torch.unique(class_labels(store))),
    )


def class_labels(store: FeatureStore) -> Tensor:
    """`[N]` int64 class ids of a store's videos.

    Raises:
        InputError: the store has no labels, or labels that are not one class a video.
    """
    if store.labels is None:
        raise InputError(
            f"{store.path}: this store has no labels, and an accuracy needs them; extract from a folder of "
            f"class folders or a list with labels, or give FeatureStore.create labels"
        )
    if store.labels.ndim != 1 or store.labels.dtype != torch.int64:
        raise InputError(
            f"{store.path}: labels are {store.labels.dtype} of shape {tuple(store.labels.shape)}; k-NN and "
            f"linear accuracy need one class a video (int64, one number a video)"
            + (
                "; for labels that are numbers there is the protocol 'regression'"
                if is_regression(store)
                else ""
            )
        )
    if int(store.labels.min()) < 0:
        row = int((store.labels < 0).nonzero()[0])
        raise InputError(
            f"{store.path}: the label of {store.ids[row]!r} is {int(store.labels[row])}; expected 0 or more"
        )
    return store.labels


def is_regression(store: FeatureStore) -> bool:
    """Whether the labels are numbers to be predicted: floating `[N]` or `[N, K]`."""
    return store.labels is not None and store.labels.is_floating_point()


def regression_targets(store: FeatureStore) -> Tensor:
    """`[N, K]` fp64 labels that are numbers.

    Raises:
        InputError: the store has no labels, or classes.
    """
    if not is_regression(store):
        what = "no labels" if store.labels is None else f"labels of {store.labels.dtype}"
        raise InputError(
            f"{store.path}: this store has {what}; regression needs floating labels [N] or [N, K]"
        )
    assert store.labels is not None
    return store.labels.double().reshape(len(store), -1)


def check_labels(train: FeatureStore, test: FeatureStore, *, protocols: Sequence[str]) -> None:
    """Refuse labels that one of the protocols has no use for, before the others have taken hours.

    Raises:
        InputError: classes where numbers are needed, the reverse, or a single class.
    """
    for store in (train, test):
        if "regression" in protocols:
            regression_targets(store)
        if set(protocols) - {"regression"}:
            class_labels(store)
    needing = [
        (train, set(protocols) - {"regression", "clustering"}),
        (test, {"clustering"} & set(protocols)),
    ]
    for store, asked in needing:
        if asked and len(class_labels(store).unique()) < 2:
            raise InputError(
                f"{store.path}: all videos are of one class; {', '.join(sorted(asked))} needs at least 2 classes"
            )


def class_names(train: FeatureStore, test: FeatureStore) -> tuple[str, ...] | None:
    """Names of the classes by label, from whichever store has them."""
    return train.classes or test.classes


def check_splits(train: FeatureStore, test: FeatureStore, *, allow_overlap: bool = False) -> list[str]:
    """Refuse splits that cannot be compared, and say what a reader of the numbers should know.

    Args:
        train: store of the training videos.
        test: store of the test videos.
        allow_overlap: take videos that are in both stores; the notes then say how many there are.

    Returns:
        Notes in plain sentences.

    Raises:
        InputError: labels are missing or not one class a video, the label sets differ, or videos are in both
            stores.
        StoreError: backbones, clips or positions differ.
    """
    train.check_compatible(test)
    notes = _check_labels(train, test)
    overlap = find_overlap(train, test)
    count = f"{len(overlap.shared)} of {len(test)} test videos are in the training store too"
    if overlap.shared and not allow_overlap:
        raise InputError(
            f"{train.path} and {test.path}: {count} (first: {overlap.shared[0]!r}), so their labels would be "
            f"known beforehand. Evaluate on other videos; where equal names mean different videos, or the "
            f"overlap is meant, allow it (--allow-overlap)"
        )
    if overlap.shared:
        notes.append(f"{count}: the numbers are too high.")
    if overlap.namesakes:
        notes.append(
            f"{counted(overlap.namesakes, 'id')} in both stores, but labels, lengths or features say that these are "
            f"different videos."
        )
    if overlap.copies:
        notes.append(
            f"{len(overlap.copies)} of {len(test)} test videos have exactly the features of a training video "
            f"of another name (first: {overlap.copies[0]!r}); they may be copies."
        )
    return notes


def _check_labels(train: FeatureStore, test: FeatureStore) -> list[str]:
    if is_regression(train) and is_regression(test):
        counts = [regression_targets(store).shape[1] for store in (train, test)]
        if counts[0] != counts[1]:
            raise InputError(f"{train.path} and {test.path} have {counts[0]} and {counts[1]} numbers a video")
        return []
    known, asked = class_labels(train), class_labels(test)
    where = f"{train.path} and {test.path}"
    if train.classes is not None and test.classes is not None and train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        what = (
            f"only one of them has {', '.join(map(repr, odd[:5]))}"
            if odd
            else "the same names in another order"
        )
        raise InputError(f"{where} have different classes, so equal labels mean different things: {what}")
    missing = sorted(set(asked.unique().tolist()) - set(known.unique().tolist()))
    if missing:
        names = class_names(train, test)
        first = names[missing[0]] if names and missing[0] < len(names) else str(missing[0])
        raise InputError(
            f"{where}: no training video for {counted(len(missing), 'class')} of the test videos (first: {first!r}); "
            "no classifier can find them"
        )
    notes = []
    if (train.classes is None) != (test.classes is None):
        bare = train.path if train.classes is None else test.path
        notes.append(
            f"{bare} names no classes: whether its labels mean those of the other store was not checked."
        )
    lonely = len(known.unique()) - len(asked.unique())
    if lonely:
        notes.append(f"{counted(lonely, 'class')} without a test video.")
    return notes
