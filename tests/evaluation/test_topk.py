"""`nearest_rows` against a full stable sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast.errors import InputError
from scalefast.evaluation import nearest_rows


def full_sort(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, index = (queries @ gallery.T).sort(dim=1, descending=True, stable=True)
    return values[:, :k], index[:, :k]


@given(
    queries=st.integers(1, 7),
    rows=st.integers(1, 40),
    k=st.integers(1, 40),
    query_rows=st.integers(1, 8),
    gallery_rows=st.integers(1, 41),
    levels=st.sampled_from([2, 3, 1000]),
    seed=st.integers(0, 10_000),
)
def test_equals_full_stable_sort_with_many_ties(
    queries: int, rows: int, k: int, query_rows: int, gallery_rows: int, levels: int, seed: int
) -> None:
    """Small integers make exact products, and with two or three levels nearly everything is tied."""
    k = min(k, rows)
    random = torch.Generator().manual_seed(seed)
    asked = torch.randint(0, levels, (queries, 3), generator=random).double()
    gallery = torch.randint(0, levels, (rows, 3), generator=random).double()
    values, index = nearest_rows(asked, gallery, k=k, query_rows=query_rows, gallery_rows=gallery_rows)
    expected = full_sort(asked, gallery, k)
    assert torch.equal(values, expected[0])
    assert torch.equal(index, expected[1])


def test_duplicates_across_tiles_come_in_order() -> None:
    gallery = torch.ones(10, 2)
    _, index = nearest_rows(torch.ones(3, 2), gallery, k=7, gallery_rows=4)
    assert index.tolist() == [list(range(7))] * 3


def test_no_queries() -> None:
    values, index = nearest_rows(torch.empty(0, 4), torch.randn(5, 4), k=2)
    assert values.shape == index.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 6, -1])
def test_k_out_of_range_is_named(k: int) -> None:
    with pytest.raises(InputError, match=rf"k = {k}"):
        nearest_rows(torch.randn(2, 4), torch.randn(5, 4), k=k)


def test_widths_must_agree() -> None:
    with pytest.raises(InputError, match=r"queries\.shape = .*gallery\.shape"):
        nearest_rows(torch.randn(2, 4), torch.randn(5, 3), k=1)
