"""Whether test videos are in the training store too."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["Overlap", "find_overlap"]

ROWS = 1024
"""Videos that are read at a time."""

ALIKE = 0.05
"""Distance of two means, as a share of their distance from the mean video, below which it is rounding: fp16
features of one video from batches of different size differ by a hundredth of this."""

FEWEST_PAIRS, MOST_PAIRS, PEERS = 6, 256, 32
"""Pairs of namesakes from which their features say anything, pairs that are looked at, and others of their
class."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Test videos by what is known of them in the training store."""

    shared: tuple[str, ...]
    """Ids of videos that are in both stores."""
    namesakes: int
    """Ids in both stores that name different videos."""
    copies: tuple[str, ...]
    """Test ids whose features are to the bit those of a training video of another name."""


def find_overlap(train: FeatureStore, test: FeatureStore) -> Overlap:
    """Compare ids, and where ids do not decide, contents.

    Folders for training and test, extracted one by one, may well hold different videos of one name. So an id
    in both stores is the same video unless that is disproved: by other labels; by other numbers of frames in
    the two ledgers; by other features where both extractions had the same settings; or by features that are,
    over all such ids, no nearer to each other than to those of other videos of the class. Row numbers, which
    a store made from arrays has for want of ids, name nothing; there equal features decide.
    """
    place = {name: row for row, name in enumerate(train.ids)}
    first, second = _fingerprints(train), _fingerprints(test)
    known = set(first)
    if _unnamed(train) and _unnamed(test):
        same = tuple(name for name, print_ in zip(test.ids, second, strict=True) if print_ in known)
        return Overlap(shared=same, namesakes=0, copies=())
    common = [(place[name], row) for row, name in enumerate(test.ids) if name in place]
    different = _disproved(train, test, common)
    unlike = [pair for pair in common if pair not in different and first[pair[0]] != second[pair[1]]]
    if _look_different(train, test, unlike):
        different.update(unlike)
    return Overlap(
        shared=tuple(test.ids[pair[1]] for pair in common if pair not in different),
        namesakes=len(different),
        copies=tuple(
            name
            for name, print_ in zip(test.ids, second, strict=True)
            if print_ in known and name not in place
        ),
    )


def _disproved(train: FeatureStore, test: FeatureStore, pairs: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Of pairs of rows with one id, those that are two videos for certain."""
    before, now = _frames(train), _frames(test)
    known, asked = train.labels, test.labels
    different = set()
    for one, two in pairs:
        name = test.ids[two]
        other_label = known is not None and asked is not None and not torch.equal(known[one], asked[two])
        if other_label or (name in before and name in now and before[name] != now[name]):
            different.add((one, two))
    if pairs and _settings(train) is not None and _settings(train) == _settings(test):
        centre = _means(train, list(range(min(len(train), ROWS)))).mean(0)
        for start in range(0, len(pairs), ROWS):
            part = pairs[start : start + ROWS]
            a, b = _means(train, [one for one, _ in part]), _means(test, [two for _, two in part])
            far = (a - b).norm(dim=1) > ALIKE * (b - centre).norm(dim=1)
            different |= {pair for pair, apart in zip(part, far.tolist(), strict=True) if apart}
    return different


def _look_different(train: FeatureStore, test: FeatureStore, pairs: list[tuple[int, int]]) -> bool:
    """Whether rows with one id are, all in all, no nearer to each other than to others of their class.

    Clips of training and test are cut differently, so a video's features differ too; but where features can
    tell the videos of a class apart, its own are the nearest or nearly so. The share of the others that are
    nearer is then small, and 1/2 on average for namesakes that are other videos. Whether features can tell
    is seen on the two halves of a training video's clips; where they cannot, nothing is said. (Rendered
    actions, an untrained backbone, 96 pairs, November 2026: .11 for the same videos, .51 for others.)
    """
    if train.labels is None or len(pairs) < FEWEST_PAIRS or int(train.lengths.min()) < 2:
        return False
    across, within = [], []
    for one, two in pairs[:: -(-len(pairs) // MOST_PAIRS)]:
        peers = (train.labels == train.labels[one]).nonzero()[:, 0]
        rows = [one, *peers[peers != one][:PEERS].tolist()]
        if len(rows) > 1:
            across.append(_share_nearer(_means(train, rows), _means(test, [two])))
            within.append(_share_nearer(_means(train, rows, half=0), _means(train, [one], half=1)))
    if len(across) < FEWEST_PAIRS:
        return False
    same = sum(within) / len(within)
    return same < 0.25 and sum(across) / len(across) > (same + 0.5) / 2


def _share_nearer(rows: Tensor, query: Tensor) -> float:
    """Of all rows but the first, the share that is nearer to the query `[1, D]` than the first."""
    distances = (rows - query).norm(dim=1)
    return (distances[1:] < distances[0]).double().mean().item()


def _means(store: FeatureStore, rows: list[int], *, half: int | None = None) -> Tensor:
    """fp64 `[len(rows), D]`: mean over the clips, or over every other one, from the first (0) or the second
    (1)."""
    features, _, lengths = store.sets(rows)
    if half is not None:
        features, lengths = features[:, half::2], (lengths + 1 - half) // 2
    return features.double().sum(1) / lengths[:, None]  # the padding is zero


def _fingerprints(store: FeatureStore) -> list[bytes]:
    """A hash of the features of every video."""
    prints = []
    for start in range(0, len(store), ROWS):
        features, _, lengths = store.sets(slice(start, start + ROWS))
        for clips, length in zip(features, lengths.tolist(), strict=True):
            content = clips[:length].contiguous().view(torch.uint8).numpy()
            prints.append(hashlib.blake2b(content, digest_size=16).digest())
    return prints


def _unnamed(store: FeatureStore) -> bool:
    """Whether the ids are the row numbers."""
    return store.ids == tuple(map(str, range(len(store))))


def _settings(store: FeatureStore) -> dict[str, Any] | None:
    """What an extraction's features follow from besides the video; None for a store made another way."""
    names = ("backbone", "recipe", "seed")
    if not all(name in store.provenance for name in names):
        return None
    return {name: store.provenance[name] for name in names}


def _frames(store: FeatureStore) -> dict[str, str]:
    """Frames of each file, by id; empty where the store has no ledger."""
    return {row["path"]: row["frames"] for row in store.ledger or () if row["frames"]}
