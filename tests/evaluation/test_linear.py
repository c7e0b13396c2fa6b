"""The linear probe against scikit-learn, and how its penalty is chosen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from scalefast.errors import InputError
from scalefast.evaluation import fit_linear_probe, linear_accuracy
from scalefast.evaluation.linear import L2_GRID, validation_split

Split = tuple[torch.Tensor, torch.Tensor]


def blobs(videos: int, *, dim: int, classes: int, seed: int) -> Split:
    """Classes that overlap, columns of very different scale and offset."""
    random = torch.Generator().manual_seed(seed)
    shared = torch.Generator().manual_seed(55)
    centres, scale = torch.randn(classes, dim, generator=shared), 10 ** torch.randn(dim, generator=shared)
    labels = torch.arange(videos) % classes
    return (centres[labels] + 1.5 * torch.randn(videos, dim, generator=random)) * scale + 7, labels


def by_sklearn(
    train: Split, test_x: torch.Tensor, *, l2: float, weight: np.ndarray | None = None
) -> np.ndarray:
    """Class probabilities; `weight` of each row, 1 where it is not given."""
    x, y = train[0].double().numpy(), train[1].numpy()
    scaler = StandardScaler().fit(x, sample_weight=weight)
    total = len(x) if weight is None else weight.sum()
    # With two classes scikit-learn has one weight vector w where softmax has two, w / 2 and -w / 2: half the
    # penalty.
    softmax = 2 if len(np.unique(y)) == 2 else 1
    solver = LogisticRegression(C=softmax / (total * l2), tol=1e-12, max_iter=100_000)
    solver.fit(scaler.transform(x), y, sample_weight=weight)
    return solver.predict_proba(scaler.transform(test_x.double().numpy()))


@pytest.mark.parametrize(
    ("videos", "dim", "classes"), [(120, 8, 3), (61, 30, 4), (40, 90, 3), (24, 25, 2), (50, 1, 5)]
)
@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-3])
def test_agrees_with_sklearn(videos: int, dim: int, classes: int, l2: float) -> None:
    """More videos than dimensions and fewer: the second is solved in the span of the rows."""
    train, (asked, _) = (
        blobs(videos, dim=dim, classes=classes, seed=1),
        blobs(40, dim=dim, classes=classes, seed=2),
    )
    probe = fit_linear_probe(*train, l2=l2)
    expected = by_sklearn(train, asked, l2=l2)
    np.testing.assert_allclose(probe.logits(asked).softmax(1).numpy(), expected, atol=5e-4)
    confident = np.sort(expected, axis=1)
    clear = confident[:, -1] - confident[:, -2] > 1e-3
    assert clear.mean() >= 0.75
    assert probe.predict(asked).numpy()[clear].tolist() == expected.argmax(1)[clear].tolist()


def test_accuracy_is_that_of_the_predictions() -> None:
    train, (asked, truth) = blobs(90, dim=12, classes=3, seed=3), blobs(60, dim=12, classes=3, seed=4)
    expected = (by_sklearn(train, asked, l2=0.1).argmax(1) == truth.numpy()).mean()
    assert linear_accuracy(*train, asked, truth, l2=0.1) == pytest.approx(expected)
    assert 0.4 < expected < 1.0


def test_clips_count_by_video() -> None:
    """Rows of one video share its weight: as scikit-learn with weights 1 / clips."""
    random = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 6, (40,), generator=random)
    x, y = blobs(40, dim=6, classes=3, seed=6)
    videos = torch.repeat_interleave(torch.arange(40), lengths)
    rows = x[videos] + torch.randn(len(videos), 6, generator=random) * x.std(0)
    weight = (1.0 / lengths[videos]).double().numpy()
    probe = fit_linear_probe(rows, y, videos=videos, l2=0.05)
    expected = by_sklearn((rows, y[videos]), rows, l2=0.05, weight=weight)
    np.testing.assert_allclose(probe.logits(rows).softmax(1).numpy(), expected, atol=1e-3)


@given(seed=st.integers(0, 500), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_scale_and_offset_of_a_column_change_nothing(seed: int, scale: float, shift: float) -> None:
    x, y = blobs(30, dim=5, classes=3, seed=seed)
    other = x.clone()
    other[:, 2] = other[:, 2] * scale + shift * x[:, 2].std()
    first, second = fit_linear_probe(x, y, l2=0.1), fit_linear_probe(other, y, l2=0.1)
    torch.testing.assert_close(first.logits(x), second.logits(other), atol=2e-3, rtol=0)


def test_constant_columns_are_harmless() -> None:
    x, y = blobs(40, dim=6, classes=3, seed=7)
    padded = torch.cat([x, torch.full((40, 3), 1e4)], dim=1)
    first, second = fit_linear_probe(x, y, l2=0.1), fit_linear_probe(padded, y, l2=0.1)
    torch.testing.assert_close(first.logits(x), second.logits(padded), atol=1e-3, rtol=0)


def test_class_ids_need_not_be_consecutive() -> None:
    x, y = blobs(60, dim=6, classes=3, seed=8)
    names = torch.tensor([4, 17, 400])
    probe = fit_linear_probe(x, names[y], l2=0.1)
    assert torch.equal(probe.predict(x), names[fit_linear_probe(x, y, l2=0.1).predict(x)])


def test_penalty_is_the_best_on_the_validation_split() -> None:
    x, y = blobs(120, dim=8, classes=6, seed=9)
    probe = fit_linear_probe(x, y)
    best = max(probe.scores, key=lambda score: (score.accuracy, -score.loss))
    assert probe.l2 == best.l2
    assert [score.l2 for score in probe.scores] == sorted(L2_GRID, reverse=True)
    assert len({score.accuracy for score in probe.scores}) > 1
    assert probe.validation_videos == 24


def test_scores_are_those_of_a_fit_without_the_held_out_videos() -> None:
    x, y = blobs(80, dim=10, classes=4, seed=10)
    held_out = validation_split(y, seed=3)
    probe = fit_linear_probe(x, y, l2=(1.0, 0.1), seed=3)
    for score in probe.scores:
        expected = by_sklearn((x[~held_out], y[~held_out]), x[held_out], l2=score.l2)
        assert score.accuracy == pytest.approx((expected.argmax(1) == y[held_out].numpy()).mean())
        loss = -np.log(expected[np.arange(len(expected)), y[held_out].numpy()]).mean()
        assert score.loss == pytest.approx(loss, abs=5e-2)


def test_final_fit_uses_all_videos() -> None:
    x, y = blobs(80, dim=10, classes=4, seed=11)
    probe = fit_linear_probe(x, y)
    torch.testing.assert_close(probe.weight, fit_linear_probe(x, y, l2=probe.l2).weight)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_validation_split_leaves_every_class_in_training(
    labels: list[int], fraction: float, seed: int
) -> None:
    y = torch.tensor(labels)
    held_out = validation_split(y, fraction=fraction, seed=seed)
    assert torch.equal(held_out, validation_split(y, fraction=fraction, seed=seed))
    for name in set(labels):
        count, out = int((y == name).sum()), int(held_out[y == name].sum())
        assert out == 0 if count == 1 else 1 <= out <= count - 1
        assert count == 1 or abs(out - fraction * count) <= 1


def test_one_video_a_class_takes_the_default_penalty() -> None:
    x, y = blobs(4, dim=8, classes=4, seed=12)
    probe = fit_linear_probe(x, y)
    assert probe.scores == ()
    assert probe.validation_videos == 0
    assert torch.equal(probe.predict(x), y)


def test_global_random_state_is_untouched() -> None:
    x, y = blobs(30, dim=4, classes=3, seed=13)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit_linear_probe(x, y)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


X, Y = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (X, torch.zeros(6, dtype=torch.int64)),
            {},
            "at least 2 classes, but all training videos are of one",
        ),
        ((X, Y), {"l2": 0.0}, r"l2 must be above 0, got 0\.0"),
        ((X, Y), {"l2": (1.0, -1.0)}, r"l2 must be above 0"),
        ((X, Y), {"validation_fraction": 1.0}, "between 0 and 1, got fraction = 1.0"),
        ((torch.cat([X, torch.full((1, 4), torch.inf)]), torch.arange(7)), {}, r"first: row 6"),
        ((X, Y), {"videos": torch.zeros(6, dtype=torch.int64)}, "videos must give each row one of 6 videos"),
    ],
)
def test_bad_input_is_named(
    arguments: tuple[torch.Tensor, torch.Tensor], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit_linear_probe(*arguments, **options)
