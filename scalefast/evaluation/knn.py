"""Weighted k-nearest-neighbour classification, as SCALE's evaluation does it (METHOD: k = 20, T = 0.07).

Legend: `N` training videos, `M` test videos, `D` feature, `k` neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._checks import check_classification
from scalefast.evaluation.topk import nearest_rows

__all__ = ["center_and_normalize", "knn_accuracy", "knn_predict", "vote"]


VOTE_PAIRS = 2**22
"""Pairs of neighbours whose classes are compared at a time (32 MiB in fp64)."""


def center_and_normalize(features: Tensor, *, center: bool = True) -> Tensor:
    """`F.normalize(features - features.mean(0))`: directions around the split's own mean.

    Args:
        features: `[N, D]`, any floating dtype.
        center: subtract the mean of these rows first.

    Returns:
        `[N, D]`, rows of length 1 (or 0 where a row equals the mean), fp32 unless the input is fp64.
    """
    features = features if features.dtype == torch.float64 else features.float()
    if center:
        features = features - features.mean(0)
    return F.normalize(features, dim=1)


def knn_predict(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    center: bool = True,
) -> Tensor:
    """Class of every test row by the votes of its k nearest training rows.

    Both splits are centred by their own mean and L2-normalised; neighbour i votes for its class with weight
    `exp(similarity_i / temperature)`. Among equally near rows the first come in, among classes with equal
    votes the smallest id wins, so the answer is a function of its inputs.

    Args:
        train_x: `[N, D]`, floating.
        train_y: `[N]`, int64 class ids.
        test_x: `[M, D]`, floating.
        k: neighbours, at most N are used.
        temperature: of the votes, above 0.
        center: subtract each split's own mean; without it plain cosine similarity.

    Returns:
        `[M]` int64 class ids.

    Raises:
        InputError: shapes, dtypes or values do not fit (values that are not finite among them), or a split
            of one row is to be centred by its own mean.
    """
    check_classification(train_x, train_y, test_x)
    if k < 1 or not temperature > 0:
        raise InputError(f"k must be at least 1 and temperature above 0, got {k = } {temperature = }")
    if center and min(len(train_x), len(test_x)) < 2:
        raise InputError(
            "k-NN centres each split by its own mean, which leaves nothing of a split of one video; "
            f"both splits need at least 2 videos, got {len(train_x)} for training and {len(test_x)} for test"
        )
    gallery = center_and_normalize(train_x, center=center)
    queries = center_and_normalize(test_x, center=center).to(gallery.dtype)
    similarity, neighbours = nearest_rows(queries, gallery, k=min(k, len(gallery)))
    return vote(similarity, train_y[neighbours], temperature)


def vote(similarity: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Class with the largest sum of `exp(similarity / temperature)` over `[M, k]`; smallest id of equals."""
    predicted = []
    rows = max(1, VOTE_PAIRS // similarity.shape[1] ** 2)
    for near, names in zip(similarity.split(rows), labels.split(rows), strict=True):
        # Relative to the nearest one: the same winner, and no overflow at small temperatures.
        weight = ((near - near[:, :1]) / temperature).double().exp()
        # support[m, i] = votes for the class of neighbour i: k x k sums instead of a row as wide as all
        # classes, and no atomic adds, whose order (so whose last bit) would change from run to run on a GPU.
        same = (names[:, :, None] == names[:, None, :]).double()
        support = (same * weight[:, None, :]).sum(2)
        winner = support == support.max(dim=1, keepdim=True).values
        predicted.append(names.masked_fill(~winner, torch.iinfo(torch.int64).max).min(dim=1).values)
    return torch.cat(predicted)


def knn_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    center: bool = True,
) -> float:
    """Share of test rows whose class `knn_predict` finds, in [0, 1].

    Args:
        train_x: `[N, D]`.
        train_y: `[N]` int64.
        test_x: `[M, D]`.
        test_y: `[M]` int64.
        k: neighbours.
        temperature: of the votes.
        center: subtract each split's own mean.

    Raises:
        InputError: as `knn_predict`.
    """
    check_classification(train_x, train_y, test_x, test_y)
    predicted = knn_predict(train_x, train_y, test_x, k=k, temperature=temperature, center=center)
    return (predicted == test_y).double().mean().item()
