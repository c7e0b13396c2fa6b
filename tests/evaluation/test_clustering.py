"""k-means, NMI and ARI against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scalefast.errors import InputError
from scalefast.evaluation import adjusted_rand_index, kmeans, normalized_mutual_information
from scalefast.evaluation.clustering import contingency

Groups = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=40)


def blobs(videos: int, *, dim: int, groups: int, seed: int, spread: float = 0.6) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, dim, generator=random, dtype=torch.float64)
    return centres[torch.arange(videos) % groups] + spread * torch.randn(
        videos, dim, generator=random, dtype=torch.float64
    )


@given(pairs=Groups)
def test_measures_are_those_of_sklearn(pairs: list[tuple[int, int]]) -> None:
    truth, found = (torch.tensor(column) for column in zip(*pairs, strict=True))
    table = contingency(truth, found)
    assert table.sum() == len(pairs)
    expected = normalized_mutual_info_score(truth, found)
    assert normalized_mutual_information(table) == pytest.approx(expected, abs=1e-9)
    assert adjusted_rand_index(table) == pytest.approx(adjusted_rand_score(truth, found), abs=1e-9)


@given(pairs=Groups, seed=st.integers(0, 50))
def test_weights_count_a_video_that_often(pairs: list[tuple[int, int]], seed: int) -> None:
    truth, found = (torch.tensor(column) for column in zip(*pairs, strict=True))
    weight = np.random.default_rng(seed).multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)))
    rows = torch.from_numpy(np.repeat(np.arange(len(pairs)), weight))
    table = contingency(truth, found, weight=weight)
    expected = normalized_mutual_info_score(truth[rows], found[rows])
    assert normalized_mutual_information(table) == pytest.approx(expected, abs=1e-9)
    assert adjusted_rand_index(table) == pytest.approx(
        adjusted_rand_score(truth[rows], found[rows]), abs=1e-9
    )


@pytest.mark.parametrize(
    ("videos", "dim", "clusters"), [(60, 5, 3), (37, 2, 7), (20, 40, 4), (9, 3, 9), (5, 2, 1)]
)
def test_from_one_start_it_is_sklearns_lloyd(videos: int, dim: int, clusters: int) -> None:
    x = blobs(videos, dim=dim, groups=clusters, seed=videos)
    start = x[:clusters]
    found, inertia = kmeans(x, clusters=clusters, start=start)
    oracle = KMeans(clusters, init=start.numpy(), n_init=1, algorithm="lloyd", tol=0).fit(x.numpy())
    assert found.tolist() == oracle.labels_.tolist()
    assert inertia == pytest.approx(oracle.inertia_, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_best_of_its_starts_is_as_good_as_sklearns(seed: int) -> None:
    x = blobs(120, dim=6, groups=8, seed=seed, spread=0.9)
    _, inertia = kmeans(x, clusters=8, seed=seed)
    oracle = KMeans(8, n_init=10, random_state=seed).fit(x.numpy())
    assert inertia <= 1.03 * oracle.inertia_


@given(
    videos=st.integers(1, 25), clusters=st.integers(1, 25), copies=st.integers(1, 25), seed=st.integers(0, 30)
)
def test_every_cluster_has_a_video(videos: int, clusters: int, copies: int, seed: int) -> None:
    """Copies too: then there are fewer places than clusters."""
    clusters, places = min(clusters, videos), min(copies, videos)
    x = blobs(videos, dim=3, groups=3, seed=seed)[torch.arange(videos) % places]
    found, inertia = kmeans(x, clusters=clusters, seed=seed, restarts=2)
    assert set(found.tolist()) == set(range(clusters))
    assert inertia >= 0
    again = kmeans(x, clusters=clusters, seed=seed, restarts=2)
    assert torch.equal(found, again[0]) and inertia == again[1]


def test_random_state_of_torch_and_numpy_is_untouched() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    kmeans(blobs(20, dim=3, groups=3, seed=0), clusters=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.zeros(3), {"clusters": 1}, r"must be floating \[videos, dim\]"),
        (torch.full((3, 2), torch.nan), {"clusters": 1}, "3 of 3 rows hold NaN"),
        (torch.zeros(3, 2), {"clusters": 4}, r"clusters = 4 .* for 3 videos"),
        (torch.zeros(3, 2), {"clusters": 0}, "clusters = 0"),
        (torch.zeros(3, 2), {"clusters": 2, "start": torch.zeros(2, 3)}, r"start must be \[clusters, dim\]"),
    ],
)
def test_bad_input_is_named(x: torch.Tensor, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kmeans(x, **options)
    with pytest.raises(InputError, match="one a video"):
        contingency(torch.zeros(3).long(), torch.zeros(2).long())
