"""PCA and t-SNE: right by scikit-learn's measures, the same every time, and clusters stay apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import squareform
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.manifold._t_sne import _joint_probabilities

from scalefast.errors import InputError
from scalefast.report import pca, tsne
from scalefast.report.projection import _affinities, _gradient, align


def clusters(sizes: list[int], *, dim: int, gap: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    centres = gap * torch.nn.functional.normalize(torch.randn(len(sizes), dim, generator=random), dim=1)
    return centres[labels] + torch.randn(len(labels), dim, generator=random) / math.sqrt(dim), labels


def test_pca_is_that_of_sklearn_up_to_sign() -> None:
    x, _ = clusters([20, 30], dim=7, gap=2)
    expected = PCA(2).fit_transform(x.double().numpy())
    np.testing.assert_allclose(pca(x).abs().numpy(), np.abs(expected), atol=1e-8)


def test_pca_of_few_dimensions_and_points() -> None:
    line = torch.tensor([[1.0], [2.0], [4.0]])
    assert pca(line).shape == (3, 2)
    assert torch.equal(pca(line)[:, 1], torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(pca(line)[:, 0], (line - line.mean())[:, 0].double())


@pytest.mark.parametrize(("sizes", "dim"), [([40, 40, 40], 32), ([7, 60, 13, 29], 5), ([30] * 8, 64)])
def test_clusters_that_are_apart_stay_apart(sizes: list[int], dim: int) -> None:
    """Every point's nearest neighbours on the map are of its own cluster."""
    x, labels = clusters(sizes, dim=dim, gap=5)
    y = tsne(x)
    distances = torch.cdist(y, y).fill_diagonal_(math.inf)
    nearest = distances.topk(3, largest=False).indices
    assert bool((labels[nearest] == labels[:, None]).all())
    assert torch.isfinite(y).all()


def test_neighbourhoods_are_kept_as_well_as_by_sklearn() -> None:
    x, _ = clusters([50, 50, 50, 50], dim=20, gap=1.5, seed=3)
    data = x.double().numpy()
    ours = trustworthiness(data, tsne(x).numpy(), n_neighbors=10)
    theirs = trustworthiness(data, TSNE(init="pca", method="exact").fit_transform(data), n_neighbors=10)
    assert ours > theirs - 0.01
    assert ours > trustworthiness(data, pca(x).numpy(), n_neighbors=10)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_affinities_are_those_of_sklearn(scale: float) -> None:
    x, _ = clusters([30, 25], dim=6, gap=2, seed=1)
    x = x.double() * scale
    squared = torch.cdist(x, x).square().fill_diagonal_(0).numpy()
    expected = squareform(_joint_probabilities(squared.astype(np.float32), 12.0, 0))
    np.testing.assert_allclose(_affinities(x, 12.0).numpy(), expected, atol=2e-6, rtol=1e-3)


def test_gradient_is_that_of_the_divergence() -> None:
    x, _ = clusters([6, 7], dim=4, gap=2)
    p = _affinities(x.double(), 4.0)
    y = pca(x).requires_grad_()
    near = (1 / (1 + (y[:, None] - y[None]).square().sum(2))) * (1 - torch.eye(13))
    q = near / near.sum()
    (torch.special.xlogy(p, p) - torch.special.xlogy(p, q + torch.eye(13))).sum().backward()
    torch.testing.assert_close(_gradient(p, y.detach()), y.grad)


def test_same_points_give_the_same_map_and_no_randomness_enters() -> None:
    x, _ = clusters([15, 20], dim=8, gap=2)
    before = torch.get_rng_state()
    first = tsne(x, steps=60)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1234)
    assert torch.equal(first, tsne(x, steps=60))


@given(videos=st.integers(2, 12), distinct=st.integers(1, 12))
def test_few_points_and_copies_are_placed_finitely(videos: int, distinct: int) -> None:
    x = torch.randn(distinct, 3, generator=torch.Generator().manual_seed(videos))
    y = tsne(x[torch.arange(videos) % distinct], steps=40)
    assert y.shape == (videos, 2)
    assert torch.isfinite(y).all()


@given(angle=st.floats(0, 6.3), mirror=st.booleans(), seed=st.integers(0, 100))
def test_align_undoes_turns_and_mirrors(angle: float, mirror: bool, seed: int) -> None:
    y = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = y - y.mean(0)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    turned = (y * torch.tensor([-1.0 if mirror else 1.0, 1.0])) @ turn
    torch.testing.assert_close(align(turned, to=y), y)


@pytest.mark.parametrize(
    "x", [torch.randn(1, 4), torch.randn(5), torch.full((6, 2), math.nan), torch.empty(0, 3)]
)
def test_bad_points_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"at least 2 finite points \[N, D\], got x\.shape"):
        tsne(x)
