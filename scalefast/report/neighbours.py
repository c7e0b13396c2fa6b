"""Which training videos are nearest to some test videos, by mean pooling and by SCALE.

Legend: `N` training videos, `M` test videos, `k` neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scalefast.evaluation.knn import center_and_normalize
from scalefast.evaluation.topk import nearest_rows

__all__ = ["Neighbours", "find_neighbours", "pick_queries"]


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest training videos of every test video, in the space in which k-NN votes."""

    rows: Tensor
    """`[M, k]` int64, rows of the training store, nearest first."""
    similarity: Tensor
    """`[M, k]`, cosine after each split was centred by its own mean."""
    share_of_class: float
    """Of these neighbours, the share that is of the test video's class, over all test videos."""


def find_neighbours(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, k: int
) -> Neighbours:
    """Nearest training rows of every test row.

    Args:
        train: `[N, D]`.
        train_labels: `[N]`.
        test: `[M, D]`.
        test_labels: `[M]`.
        k: at most N are given.
    """
    gallery, queries = center_and_normalize(train), center_and_normalize(test)
    similarity, rows = nearest_rows(queries, gallery, k=min(k, len(gallery)))
    rows, similarity = rows.cpu(), similarity.cpu()
    same = train_labels.cpu()[rows] == test_labels.cpu()[:, None]
    return Neighbours(rows=rows, similarity=similarity, share_of_class=same.double().mean().item())


def pick_queries(labels: Tensor, *, count: int) -> list[int]:
    """Rows of one test video each of up to `count` classes, evenly spread over the classes.

    The first video of a class in the order of the store, so that nobody chooses those that look good.
    """
    classes = torch.unique(labels).tolist()
    chosen = classes if len(classes) <= count else [classes[i * len(classes) // count] for i in range(count)]
    return [int((labels == name).nonzero()[0]) for name in chosen]
