"""Clustering without labels: k-means of the test videos, judged by the classes that it has not seen.

Legend: `N` videos, `D` feature, `K` clusters, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._checks import check_finite

__all__ = ["adjusted_rand_index", "contingency", "kmeans", "normalized_mutual_information"]

RESTARTS = 10
MAX_ITERATIONS = 300


def kmeans(
    x: Tensor, *, clusters: int, seed: int = 0, restarts: int = RESTARTS, start: Tensor | None = None
) -> tuple[Tensor, float]:
    """Lloyd's k-means from k-means++ starts, in fp64; the best of several starts by inertia.

    The draws are numpy's Philox keyed with the seed, so that results depend on neither the machine's random
    state nor on which packages are installed. A cluster that loses all its videos takes the video that is
    farthest from its own centre.

    Args:
        x: `[N, D]` floating.
        clusters: K, 1 to N.
        seed: of the starts.
        restarts: starts that are tried.
        start: `[K, D]` centres to start from instead; then there is one start.

    Returns:
        `[N]` int64 cluster of every video in 0..K-1, and the inertia (sum of squared distances to the centres).

    Raises:
        InputError: shapes or values do not fit, or there are fewer videos than clusters.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise InputError(f"features to cluster must be floating [videos, dim], got {x.shape = } {x.dtype = }")
    check_finite(x, what="features to cluster")
    if not 1 <= clusters <= len(x) or restarts < 1:
        raise InputError(
            f"clusters must lie between 1 and the number of videos, and restarts be at least 1, "
            f"got {clusters = } {restarts = } for {len(x)} videos"
        )
    if start is not None and start.shape != (clusters, x.shape[1]):
        raise InputError(f"start must be [clusters, dim] = {(clusters, x.shape[1])}, got {start.shape = }")
    x = x.double()
    random = np.random.Generator(np.random.Philox(key=seed))
    starts = (
        [start.double()] if start is not None else (_spread(x, clusters, random) for _ in range(restarts))
    )
    found = [_lloyd(x, centres) for centres in starts]
    return min(found, key=lambda one: one[1])


def _spread(x: Tensor, clusters: int, random: np.random.Generator) -> Tensor:
    """k-means++: each next centre is drawn with probability proportional to the squared distance."""
    chosen = [int(random.integers(len(x)))]
    distance = (x - x[chosen[0]]).square().sum(1)
    for _ in range(clusters - 1):
        weights = distance.cpu().numpy().cumsum()
        place = np.searchsorted(weights, random.random() * weights[-1], side="right")
        chosen.append(min(int(place), len(x) - 1))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(1))
    return x[chosen]


def _lloyd(x: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    assigned = None
    for _ in range(MAX_ITERATIONS):
        distance = torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist")
        nearest, before = distance.argmin(1), assigned
        assigned = _no_empty(nearest, distance, len(centres))
        if before is not None and torch.equal(assigned, before):
            break
        member = torch.nn.functional.one_hot(assigned, len(centres)).to(x.dtype)
        centres = member.T @ x / member.sum(0)[:, None]
    assert assigned is not None
    return assigned, (x - centres[assigned]).square().sum().item()


def _no_empty(assigned: Tensor, distance: Tensor, clusters: int) -> Tensor:
    """Give each empty cluster the video farthest from its centre, out of a cluster that can spare one."""
    counts = torch.bincount(assigned, minlength=clusters)
    for empty in (counts == 0).nonzero().flatten().tolist():
        own = distance.gather(1, assigned[:, None])[:, 0].masked_fill(counts[assigned] < 2, -1.0)
        video = int(own.argmax())
        counts[assigned[video]] -= 1
        counts[empty] += 1
        assigned = assigned.clone()
        assigned[video] = empty
    return assigned


def contingency(
    truth: Tensor, found: Tensor, *, weight: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """`[C, K]`: videos of each class in each cluster; `weight [N]` counts a video that often.

    Raises:
        InputError: the two are not int64 of one length above 0.
    """
    if truth.ndim != 1 or truth.shape != found.shape or not len(truth):
        raise InputError(f"classes and clusters must be one a video, got {truth.shape = } {found.shape = }")
    classes, row = np.unique(truth.cpu().numpy(), return_inverse=True)
    clusters, column = np.unique(found.cpu().numpy(), return_inverse=True)
    cells = np.bincount(row * len(clusters) + column, weight, minlength=len(classes) * len(clusters))
    return cells.reshape(len(classes), len(clusters)).astype(np.float64)


def normalized_mutual_information(table: NDArray[np.float64]) -> float:
    """NMI of a contingency table `[C, K]`: `2 I(class; cluster) / (H(class) + H(cluster))`, in [0, 1].

    1 where both put all videos into one group, as scikit-learn has it.
    """
    joint = table / table.sum()
    entropies = [_entropy(joint.sum(axis)) for axis in (1, 0)]
    if not sum(entropies):
        return 1.0
    information = sum(entropies) - _entropy(joint.ravel())
    return float(min(max(2 * information / sum(entropies), 0.0), 1.0))


def adjusted_rand_index(table: NDArray[np.float64]) -> float:
    """ARI of a contingency table `[C, K]` (Hubert and Arabie, 1985): 1 for equal partitions, about 0 by chance."""
    together, by_class, by_cluster = ((n * (n - 1) / 2).sum() for n in (table, table.sum(1), table.sum(0)))
    total = table.sum()
    pairs = total * (total - 1) / 2
    expected = by_class * by_cluster / pairs if pairs else 0.0
    largest = (by_class + by_cluster) / 2
    return 1.0 if largest == expected else float((together - expected) / (largest - expected))


def _entropy(shares: Sequence[float] | NDArray[np.float64]) -> float:
    """In nats."""
    some = np.asarray(shares)
    some = some[some > 0]
    return float(max(-(some * np.log(some)).sum(), 0.0))
