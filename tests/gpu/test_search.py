"""Ranking and search on a GPU give what they give on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scalefast.evaluation import knn_predict, nearest_rows
from scalefast.search import build_index


def unit(rows: int, dim: int, *, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(
    ("queries", "rows", "dim", "k"), [(1, 1, 3, 1), (37, 1009, 129, 20), (1500, 20_001, 64, 5)]
)
def test_nearest_rows_are_those_of_the_cpu(
    cuda: torch.device, queries: int, rows: int, dim: int, k: int
) -> None:
    asked, gallery = unit(queries, dim, seed=1), unit(rows, dim, seed=2)
    values, index = nearest_rows(asked.to(cuda), gallery.to(cuda), k=k)
    expected, order = nearest_rows(asked, gallery, k=k)
    torch.testing.assert_close(values.cpu(), expected, atol=1e-5, rtol=0)
    assert float((index.cpu() == order).double().mean()) > 0.999, "two similarities may round to one another"


def test_copies_come_in_the_order_of_their_rows(cuda: torch.device) -> None:
    gallery = unit(1, 65, seed=3).expand(5000, 65).to(cuda)
    _, index = nearest_rows(gallery[:9], gallery, k=7)
    assert index.tolist() == [list(range(7))] * 9


def test_knn_votes_as_on_the_cpu(cuda: torch.device) -> None:
    train, test = unit(600, 32, seed=4), unit(200, 32, seed=5)
    labels = torch.arange(600) % 7
    found = knn_predict(train.to(cuda), labels.to(cuda), test.to(cuda)).cpu()
    assert float((found == knn_predict(train, labels, test)).double().mean()) > 0.99


def test_index_on_the_gpu_answers_as_on_the_cpu(cuda: torch.device) -> None:
    vectors = unit(3001, 96, seed=6)
    on_gpu, on_cpu = build_index(vectors.to(cuda)), build_index(vectors)
    for query in unit(20, 96, seed=7):
        similarity, rows = on_gpu.nearest(query.to(cuda), k=9)
        expected, order = on_cpu.nearest(query, k=9)
        torch.testing.assert_close(similarity, expected, atol=1e-6, rtol=0)
        assert rows.device.type == "cpu" and torch.equal(rows, order)
