"""The nearest of many vectors, against a full sort in fp64."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from scalefast.errors import DataError, InputError, MissingExtraError
from scalefast.search import EXACT_LIMIT, build_index


def full_sort(vectors: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines in fp64, rounded to fp32, all sorted; equals in the order of their rows."""
    unit = F.normalize(vectors.float(), dim=1).double()
    cosine = torch.stack([(row * F.normalize(query.double(), dim=0)).sum() for row in unit]).float()
    return cosine.sort(descending=True, stable=True)


def clusters(count: int, *, dim: int, centres: int, spread: float, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    middle = F.normalize(torch.randn(centres, dim, generator=random), dim=1)
    which = torch.randint(centres, (count,), generator=random)
    return middle[which] + spread * torch.randn(count, dim, generator=random) / dim**0.5


@given(
    rows=st.integers(1, 60),
    distinct=st.integers(1, 60),
    dim=st.integers(1, 9),
    k=st.integers(1, 70),
    seed=st.integers(0, 10_000),
)
def test_exact_is_a_full_sort_copies_in_order(rows: int, distinct: int, dim: int, k: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(distinct, dim, generator=random)[torch.arange(rows) % distinct]
    query = torch.randn(dim, generator=random)
    values, order = full_sort(vectors, query)
    similarity, found = build_index(vectors).nearest(query, k=k)
    torch.testing.assert_close(similarity, values[:k], atol=2e-7, rtol=0)
    if distinct >= rows and dim > 1:  # no copies, no ties
        assert torch.equal(found, order[:k])
    for value in similarity.unique():  # whatever is equal stands in the order of its rows
        same = found[similarity == value]
        assert torch.equal(same, same.sort().values)


def test_copies_anywhere_are_equal_to_the_bit() -> None:
    """Among enough rows that a matrix product treats the last ones in another way than the first."""
    vectors = torch.randn(1003, 131, generator=torch.Generator().manual_seed(1))
    copies = [0, 1, 7, 500, 999, 1001, 1002]
    vectors[copies] = vectors[3].clone()
    similarity, found = build_index(vectors).nearest(vectors[3], k=8)
    assert found.tolist() == [0, 1, 3, 7, 500, 999, 1001, 1002]
    assert similarity.unique().numel() == 1


def test_scale_of_a_vector_does_not_matter() -> None:
    vectors = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    long = vectors * torch.logspace(-3, 3, 30)[:, None]
    query = torch.randn(5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(
        build_index(vectors).nearest(query, k=9)[1], build_index(long).nearest(query * 50, k=9)[1]
    )


def test_faiss_finds_what_an_exact_search_finds() -> None:
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    vectors = clusters(20_000, dim=48, centres=60, spread=0.6)
    index, exact = build_index(vectors, kind="faiss"), build_index(vectors, kind="exact")
    assert index.kind == "faiss" and exact.kind == "exact"
    asked = clusters(60, dim=48, centres=60, spread=0.6)
    hits = 0
    for query in asked:
        similarity, rows = index.nearest(query, k=10)
        truth_similarity, truth = exact.nearest(query, k=10)
        hits += int(torch.isin(truth, rows).sum())
        shared = torch.isin(rows, truth)
        assert torch.equal(similarity[shared], truth_similarity[torch.isin(truth, rows)]), (
            "exact similarities"
        )
        assert torch.equal(similarity, similarity.sort(descending=True).values)
    assert hits / 600 >= 0.95
    assert index.inverted is not None and index.inverted.recall >= 0.98
    assert 1 <= index.inverted.probes < index.inverted.cells


def test_faiss_gives_the_same_index_twice() -> None:
    faiss = pytest.importorskip("faiss", reason="the extra faiss is not installed")
    vectors = clusters(3_000, dim=16, centres=10, spread=0.5)
    first, second = (build_index(vectors, kind="faiss").inverted for _ in range(2))
    assert first is not None and second is not None
    assert (faiss.serialize_index(first.index) == faiss.serialize_index(second.index)).all()
    assert (first.probes, first.recall) == (second.probes, second.recall)


@pytest.mark.parametrize("rows", [1, 2, 39, 90])
def test_faiss_of_few_vectors(rows: int) -> None:
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    vectors = torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows))
    index = build_index(vectors, kind="faiss")
    assert index.nearest(vectors[rows - 1], k=5)[1][0] == rows - 1
    assert len(index.nearest(vectors[0], k=5)[1]) <= min(rows, 5)


def test_auto_is_exact_up_to_the_limit() -> None:
    assert build_index(torch.ones(EXACT_LIMIT, 1)).kind == "exact"


def test_above_the_limit_faiss_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def absent(name: str, *rest: object) -> object:
        if name == "faiss":
            raise ModuleNotFoundError("No module named 'faiss'", name="faiss")
        return real(name, *rest)

    monkeypatch.setattr("scalefast.errors.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"index of 50,001 videos; .*scalefast\[faiss\]"):
        build_index(torch.ones(EXACT_LIMIT + 1, 1))


def test_bad_vectors_and_queries_are_refused() -> None:
    vectors = torch.randn(4, 3)
    with pytest.raises(InputError, match=r"at least one, got vectors\.shape"):
        build_index(vectors[:0])
    with pytest.raises(InputError, match="'auto', 'exact' or 'faiss', got 'annoy'"):
        build_index(vectors, kind="annoy")  # type: ignore[arg-type]
    vectors[2, 1] = torch.nan
    with pytest.raises(DataError, match="vector 2 holds NaN"):
        build_index(vectors)
    index = build_index(torch.randn(4, 3))
    with pytest.raises(InputError, match=r"expected a query \[3\] and k >= 1"):
        index.nearest(torch.randn(4), k=1)
    with pytest.raises(InputError, match="k = 0"):
        index.nearest(torch.randn(3), k=0)
    with pytest.raises(DataError, match="query holds NaN"):
        index.nearest(torch.tensor([0.0, torch.inf, 1.0]), k=1)
