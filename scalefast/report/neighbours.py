"""The training videos nearest to each test video, and what their votes say of it.

Legend: `N` training videos, `M` test videos, `k` neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scalefast.evaluation.knn import center_and_normalize, vote
from scalefast.evaluation.topk import nearest_rows

__all__ = ["Neighbours", "find_neighbours", "pick_queries"]

TEMPERATURE = 0.07
"""Of the votes, as in the protocol `knn` (METHOD: k-NN)."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest training videos of every test video, in the space in which k-NN votes."""

    rows: Tensor
    """`[M, k]` int64, rows of the training store, nearest first."""
    similarity: Tensor
    """`[M, k]`, cosine after each split was centred by its own mean."""
    same: Tensor
    """bool `[M, k]`, whether the neighbour is of the test video's class."""
    predicted: Tensor
    """`[M]` int64, the class for which the neighbours vote: that of `knn_predict`."""
    truth: Tensor
    """`[M]` int64, the test video's class."""

    @property
    def accuracy(self) -> float:
        """Share of the test videos whose class the neighbours vote for."""
        return (self.predicted == self.truth).double().mean().item()

    @property
    def support(self) -> Tensor:
        """`[M]` fp64: share of the votes that a test video's own class gets, in [0, 1]."""
        votes = (self.similarity.double() / TEMPERATURE).softmax(dim=1)
        return (votes * self.same).sum(1)

    @property
    def wrong(self) -> list[int]:
        """Rows of the test videos that are taken for another class, those with the least support first."""
        order = self.support.sort(stable=True).indices
        return order[self.predicted[order] != self.truth[order]].tolist()

    def share_of_class(self, *, nearest: int) -> float:
        """Of so many nearest neighbours, the share that is of the test video's class, over all test videos."""
        return self.same[:, :nearest].double().mean().item()


def find_neighbours(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, k: int = 20
) -> Neighbours:
    """Nearest training rows of every test row, on the CPU.

    Args:
        train: `[N, D]`, at least 2 rows.
        train_labels: `[N]`.
        test: `[M, D]`, at least 2 rows.
        test_labels: `[M]`.
        k: at most N are given.
    """
    gallery, queries = center_and_normalize(train), center_and_normalize(test)
    similarity, rows = nearest_rows(queries, gallery, k=min(k, len(gallery)))
    rows, similarity = rows.cpu(), similarity.cpu()
    labels, truth = train_labels.cpu()[rows], test_labels.cpu()
    return Neighbours(
        rows=rows,
        similarity=similarity,
        same=labels == truth[:, None],
        predicted=vote(similarity, labels, TEMPERATURE),
        truth=truth,
    )


def pick_queries(labels: Tensor, *, count: int) -> list[int]:
    """Rows of one test video each of up to `count` classes, evenly spread over the classes.

    The first video of a class in the order of the store, so that nobody chooses those that look good.
    """
    classes = torch.unique(labels).tolist()
    chosen = classes if len(classes) <= count else [classes[i * len(classes) // count] for i in range(count)]
    return [int((labels == name).nonzero()[0]) for name in chosen]
