"""How fast are the nearest vectors found, by search and by k-NN, against faiss in the same run?

Search: one query at a time over 200,000 clustered vectors of 768 (SCALEFAST_BENCH_VECTORS; a million takes about 10 GB
of memory and some minutes to index), through the kept index and through every vector. A query is a new draw from
the clusters, so it is not in the index. Nothing is timed before recall@10 against the exact
answers is known to be at least .95.

k-NN: the 20 nearest of 20,000 for each of 5,000 queries of 1,280, by `nearest_rows` and by faiss's exact index. Nothing
is timed before both agree.

Without timing (`--benchmark-disable`) both are small and checked all the same.
"""

from __future__ import annotations

import itertools
import os
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scalefast.evaluation import nearest_rows
from scalefast.search import VectorIndex, build_index

faiss = pytest.importorskip("faiss", reason="the extra faiss is not installed")

VECTORS = int(os.environ.get("SCALEFAST_BENCH_VECTORS", "200000"))
WIDTH, CLUSTERS, QUERIES, NEIGHBOURS = 768, 2_000, 200, 10
TARGETS = {"p50_ms": 10.0, "recall_at_10": 0.95, "knn_seconds": 10.0}


class Case(NamedTuple):
    """An index of each kind over the same vectors."""

    coarse: VectorIndex
    exact: VectorIndex
    queries: torch.Tensor
    recall: float


def clustered(count: int, *, clusters: int, seed: int) -> torch.Tensor:
    """fp32 `[count, WIDTH]`: unit centres, and around each noise as long as the centre."""
    centres = F.normalize(torch.randn(clusters, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)
    random = torch.Generator().manual_seed(seed)
    vectors = centres[torch.randint(clusters, (count,), generator=random)]
    for rows in vectors.split(1 << 16):
        rows += torch.randn(rows.shape, generator=random) / WIDTH**0.5
    return vectors


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    timed = not request.config.getoption("benchmark_disable")
    rows, clusters = (VECTORS, CLUSTERS) if timed else (20_000, 40)
    vectors = clustered(rows, clusters=clusters, seed=1)
    coarse = build_index(vectors, kind="faiss", say=print)
    exact = VectorIndex(vectors=coarse.vectors)
    queries = F.normalize(clustered(QUERIES, clusters=clusters, seed=2), dim=1)
    _, truth = nearest_rows(queries, coarse.vectors[:], k=NEIGHBOURS)
    hits = sum(
        int(torch.isin(near, coarse.nearest(query, k=NEIGHBOURS)[1]).sum())
        for query, near in zip(queries, truth, strict=True)
    )
    recall = hits / truth.numel()
    assert recall >= TARGETS["recall_at_10"]
    assert torch.equal(exact.nearest(queries[0], k=NEIGHBOURS)[1], truth[0])
    return Case(coarse, exact, queries, recall)


@pytest.mark.parametrize("kind", ["faiss", "exact"])
def test_search(benchmark, case: Case, kind: str) -> None:
    benchmark.group = f"search: one query over {len(case.coarse.vectors):,} vectors of {WIDTH}"
    index = case.coarse if kind == "faiss" else case.exact
    queries = itertools.cycle(case.queries)
    rounds = QUERIES if kind == "faiss" else 20
    benchmark.pedantic(
        lambda: index.nearest(next(queries), k=NEIGHBOURS), rounds=rounds, iterations=1, warmup_rounds=5
    )
    benchmark.extra_info["load"] = os.getloadavg()[0]
    if kind == "faiss":
        assert index.inverted is not None
        benchmark.extra_info.update(
            recall_at_10=case.recall, cells=index.inverted.cells, probes=index.inverted.probes
        )
    if benchmark.enabled:
        benchmark.extra_info["p50_ms"] = 1e3 * benchmark.stats.stats.median


@pytest.fixture(scope="module")
def split(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and gallery, once both ways are known to find the same."""
    timed = not request.config.getoption("benchmark_disable")
    asked, rows = (5_000, 20_000) if timed else (50, 2_000)
    random = torch.Generator().manual_seed(3)
    queries, gallery = (F.normalize(torch.randn(n, 1280, generator=random), dim=1) for n in (asked, rows))
    ours, theirs = nearest_rows(queries, gallery, k=20), flat(queries, gallery)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    # Where two similarities round to one another the order may differ, nowhere else.
    assert float((ours[1] == torch.from_numpy(theirs[1])).double().mean()) > 0.999
    return queries, gallery


def flat(queries: torch.Tensor, gallery: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The 20 nearest by faiss's exact index, which has to be filled first, as ours has to read its gallery."""
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.numpy())
    return index.search(queries.numpy(), 20)


@pytest.mark.parametrize("way", ["nearest_rows", "faiss flat"])
def test_knn(benchmark, split: tuple[torch.Tensor, torch.Tensor], way: str) -> None:
    queries, gallery = split
    benchmark.group = f"k-NN: {len(queries):,} x {len(gallery):,} x {gallery.shape[1]:,}"
    function = (
        (lambda: nearest_rows(queries, gallery, k=20)) if way == "nearest_rows" else lambda: flat(*split)
    )
    benchmark.pedantic(function, rounds=5, iterations=1, warmup_rounds=1)
    benchmark.extra_info.update(
        threads=torch.get_num_threads(), faiss=faiss.__version__, load=os.getloadavg()[0]
    )
