"""k-NN against scikit-learn, and what METHOD's protocol promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from scalefast.errors import InputError
from scalefast.evaluation import knn_accuracy, knn_predict

Split = tuple[torch.Tensor, torch.Tensor]


def blobs(
    videos: int, *, dim: int, classes: int, seed: int, spread: float = 1.0, offset: float = 0.0
) -> Split:
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(77))
    labels = torch.randint(0, classes, (videos,), generator=random)
    return centres[labels] + spread * torch.randn(videos, dim, generator=random) + offset, labels


def by_sklearn(train_x: Split, test_x: torch.Tensor, *, k: int, temperature: float) -> np.ndarray:
    """Cosine distance d = 1 - similarity, votes exp(similarity / T), each split centred by its own mean."""
    (x, y), t = train_x, test_x
    classifier = KNeighborsClassifier(
        n_neighbors=k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    classifier.fit((x - x.mean(0)).double().numpy(), y.numpy())
    return classifier.predict((t - t.mean(0)).double().numpy())


@pytest.mark.parametrize(
    ("train", "test", "dim", "classes", "k"),
    [(200, 101, 16, 5, 20), (97, 50, 3, 7, 20), (30, 2, 8, 2, 1), (21, 13, 64, 3, 21), (2, 5, 4, 2, 2)],
)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_agrees_with_sklearn(
    train: int, test: int, dim: int, classes: int, k: int, temperature: float
) -> None:
    x, y = blobs(train, dim=dim, classes=classes, seed=1, spread=1.5, offset=5.0)
    asked, truth = blobs(test, dim=dim, classes=classes, seed=2, spread=1.5, offset=-3.0)
    x, asked = x.double(), asked.double()
    expected = by_sklearn((x, y), asked, k=k, temperature=temperature)
    assert knn_predict(x, y, asked, k=k, temperature=temperature).tolist() == expected.tolist()
    accuracy = knn_accuracy(x, y, asked, truth, k=k, temperature=temperature)
    assert accuracy == pytest.approx((expected == truth.numpy()).mean())


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_scale_and_offset_of_a_split_change_nothing(seed: int, scale: float, shift: float) -> None:
    x, y = blobs(40, dim=6, classes=3, seed=seed)
    asked, _ = blobs(15, dim=6, classes=3, seed=seed + 1)
    x, asked = x.double(), asked.double()
    plain = knn_predict(x, y, asked, k=5)
    assert torch.equal(knn_predict(x, y, scale * asked + shift, k=5), plain)
    assert torch.equal(knn_predict(scale * x - shift, y, asked, k=5), plain)


@given(seed=st.integers(0, 1000))
def test_order_of_training_videos_changes_nothing_without_ties(seed: int) -> None:
    x, y = blobs(40, dim=6, classes=3, seed=seed)
    asked, _ = blobs(15, dim=6, classes=3, seed=seed + 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    x, asked = x.double(), asked.double()
    assert torch.equal(knn_predict(x[order], y[order], asked, k=7), knn_predict(x, y, asked, k=7))


def test_equal_votes_go_to_the_smaller_class() -> None:
    """The query lies between one video of class 3 and one of class 1, equally far."""
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-2.0, 0.0]])
    labels = torch.tensor([3, 1, 2])
    assert knn_predict(x, labels, torch.tensor([[1.0, 0.0]]), k=2, center=False).tolist() == [1]


def test_first_of_equally_near_rows_are_taken() -> None:
    """Ten copies of one video: k = 3 takes the first three, whatever top-k does with equals."""
    x = torch.ones(10, 2)
    labels = torch.tensor([5, 5, 4, 0, 0, 0, 0, 0, 0, 0])
    assert knn_predict(x, labels, torch.ones(1, 2), k=3, center=False).tolist() == [5]


def test_low_temperature_does_not_overflow() -> None:
    x, y = blobs(50, dim=8, classes=3, seed=3)
    nearest = knn_predict(x, y, x[:10], k=1, center=False)
    assert torch.equal(knn_predict(x, y, x[:10], k=20, temperature=1e-4, center=False), nearest)


def test_more_neighbours_than_videos_uses_all() -> None:
    x, y = blobs(9, dim=4, classes=2, seed=4)
    asked, _ = blobs(6, dim=4, classes=2, seed=5)
    assert torch.equal(knn_predict(x, y, asked, k=20), knn_predict(x, y, asked, k=9))


def test_half_precision_features_are_computed_in_fp32() -> None:
    x, y = blobs(60, dim=16, classes=3, seed=6, offset=100.0)
    half = x.half()
    assert torch.equal(knn_predict(half, y, half[:20]), knn_predict(half.float(), y, half[:20].float()))


X, Y = torch.randn(6, 4), torch.zeros(6, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[None], Y, X), r"training features must be floating and of shape \[videos, dim\]"),
        ((X.long(), Y, X), r"training features must be floating.*int64"),
        ((X, Y.float(), X), r"training labels must be int64, one a video, got .*float32"),
        ((X, Y[:5], X), r"got y\.shape = torch\.Size\(\[5\]\).* for 6 videos"),
        ((X, Y - 1, X), r"training labels must be class ids from 0 on, got -1"),
        ((X, Y, X[:, :3]), r"must be of one width, got 4 and 3"),
        ((X, Y, X[:0]), r"the test split is empty"),
        ((X, Y, torch.full_like(X, torch.nan)), r"test features must be finite, but 6 of 6 rows"),
        ((X, Y, X[:1]), r"leaves nothing of a split of one video"),
    ],
)
def test_bad_input_is_named(arguments: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        knn_predict(*arguments)


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_bad_options_are_named(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="k must be at least 1 and temperature above 0"):
        knn_predict(X, Y, X, **options)
