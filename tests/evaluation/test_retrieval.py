"""Retrieval against a ranking by brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast.errors import InputError
from scalefast.evaluation import retrieval_hits


def by_brute_force(
    x: torch.Tensor, y: torch.Tensor, asked: torch.Tensor, truth: torch.Tensor, rank: int
) -> list[bool]:
    found = []
    for query, name in zip(asked, truth.tolist(), strict=True):
        near = [float(torch.dot(query, row) / (query.norm() * row.norm())) for row in x]
        order = sorted(range(len(x)), key=lambda row: (-near[row], row))
        found.append(any(y[row].item() == name for row in order[:rank]))
    return found


@given(
    seed=st.integers(0, 300),
    gallery=st.integers(1, 30),
    queries=st.integers(1, 10),
    classes=st.integers(1, 6),
)
def test_is_the_ranking_by_brute_force(seed: int, gallery: int, queries: int, classes: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(gallery, 5, generator=random, dtype=torch.float64)
    asked = torch.randn(queries, 5, generator=random, dtype=torch.float64)
    y = torch.randint(0, classes, (gallery,), generator=random)
    truth = torch.randint(0, classes, (queries,), generator=random)
    hits = retrieval_hits(x, y, asked, truth, ranks=(1, 3, 20))
    for column, rank in enumerate((1, 3, 20)):
        assert hits[:, column].tolist() == by_brute_force(x, y, asked, truth, rank)
    assert bool((hits[:, :-1] <= hits[:, 1:]).all())  # more neighbours never lose a hit
    scaled = retrieval_hits(3 * x, y, 0.2 * asked, truth, ranks=(1, 3, 20))
    assert torch.equal(hits, scaled)


def test_first_of_equally_near_videos_count() -> None:
    x, y = torch.ones(3, 2), torch.tensor([1, 0, 0])
    assert retrieval_hits(x, y, torch.ones(1, 2), torch.tensor([0]), ranks=(1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize("ranks", [(), (0,), (5, -1)])
def test_bad_ranks_are_named(ranks: tuple[int, ...]) -> None:
    x, y = torch.ones(3, 2), torch.tensor([1, 0, 0])
    with pytest.raises(InputError, match="must be 1 or more"):
        retrieval_hits(x, y, x, y, ranks=ranks)
