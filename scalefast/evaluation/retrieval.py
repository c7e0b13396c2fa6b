"""Video retrieval: does a training video of the query's class stand among the first k?

Legend: `N` training videos, `M` test videos, `D` feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._checks import check_classification
from scalefast.evaluation.knn import center_and_normalize
from scalefast.evaluation.topk import nearest_rows

__all__ = ["RANKS", "retrieval_hits"]

RANKS = (1, 5, 10, 20)
"""The k of R@k that papers report on UCF101 and HMDB51."""


def retrieval_hits(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, ranks: Sequence[int] = RANKS
) -> Tensor:
    """Whether one of the k training videos most similar to a test video has its class, for every k.

    Plain cosine similarity; among equally near videos the first ones count. R@k is the mean over test videos.

    Args:
        train_x: `[N, D]`, the gallery.
        train_y: `[N]` int64.
        test_x: `[M, D]`, the queries.
        test_y: `[M]` int64.
        ranks: values of k, at least 1; beyond N all training videos count.

    Returns:
        bool `[M, len(ranks)]`.

    Raises:
        InputError: shapes, dtypes or values do not fit, or a rank is below 1.
    """
    check_classification(train_x, train_y, test_x, test_y)
    if not ranks or min(ranks) < 1:
        raise InputError(f"the ranks of a retrieval must be 1 or more, got {list(ranks)}")
    gallery = center_and_normalize(train_x, center=False)
    queries = center_and_normalize(test_x, center=False).to(gallery.dtype)
    _, near = nearest_rows(queries, gallery, k=min(max(ranks), len(gallery)))
    same = train_y[near] == test_y[:, None]
    return torch.stack([same[:, :rank].any(1) for rank in ranks], dim=1)
