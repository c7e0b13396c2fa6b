"""All penalties of the linear probe at once: the solutions of one after another, and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import scalefast.evaluation._logistic_together as together
from scalefast.errors import InputError
from scalefast.evaluation import fit_linear_probe
from scalefast.evaluation._logistic import solve_logistic
from scalefast.evaluation._logistic_together import minimise_together, together_pays
from scalefast.evaluation.linear import L2_GRID, validation_split

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3)


def blobs(rows: int, *, dim: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes that overlap, in fp64."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, dim, generator=random)
    return (centres[labels] + 1.5 * torch.randn(rows, dim, generator=random)).double(), labels


@pytest.mark.parametrize(
    ("rows", "dim", "classes"), [(120, 8, 3), (61, 30, 4), (40, 90, 3), (24, 25, 2), (50, 1, 5)]
)
def test_solutions_are_those_in_turn_and_scikit_learns(rows: int, dim: int, classes: int) -> None:
    x, y = blobs(rows, dim=dim, classes=classes, seed=1)
    weight = torch.rand(rows, generator=torch.Generator().manual_seed(2)).double() + 0.5
    weight /= weight.sum()
    found, wanted = (
        list(
            solve_logistic(
                x, y, weight, num_classes=classes, penalties=PENALTIES, tolerance=1e-7, order=order
            )
        )
        for order in ("at_once", "in_turn")
    )
    mean = weight @ x
    scaled = (x - mean) / (weight @ (x - mean).square()).sqrt()
    for penalty, one, other in zip(PENALTIES, found, wanted, strict=True):
        assert one.gradient <= 1e-7 * penalty
        torch.testing.assert_close(one.weight, other.weight, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.bias, other.bias, atol=1e-5, rtol=1e-5)
        softmax = 2 if classes == 2 else 1  # with two classes scikit-learn has one weight vector
        solver = LogisticRegression(C=softmax / penalty, tol=1e-12, max_iter=100_000)
        solver.fit(scaled.numpy(), y.numpy(), sample_weight=weight.numpy())
        logits = x @ one.weight.T + one.bias
        np.testing.assert_allclose(logits.softmax(1).numpy(), solver.predict_proba(scaled.numpy()), atol=1e-4)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 99),
    rows=st.integers(6, 20),
    dim=st.integers(1, 6),
    classes=st.integers(2, 4),
    chunk=st.sampled_from([40, 1 << 20]),
)
def test_any_data_in_any_pieces(seed: int, rows: int, dim: int, classes: int, chunk: int) -> None:
    z, y = blobs(rows, dim=dim, classes=classes, seed=seed)
    weight = torch.full((rows,), 1 / rows, dtype=z.dtype)
    penalties, tolerances = (10.0, 1e-2, 1e-3), (1e-6, 1e-8, 1e-8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "CHUNK_ELEMENTS", chunk)
        w, b, largest = minimise_together(
            z, y, weight, num_classes=classes, penalties=penalties, tolerances=tolerances
        )
    assert bool((largest <= torch.tensor(tolerances)).all())
    for penalty, own, bias, known in zip(penalties, w, b, largest, strict=True):
        own, bias = own.clone().requires_grad_(), bias.clone().requires_grad_()
        loss = weight @ torch.nn.functional.cross_entropy(z @ own.T + bias, y, reduction="none")
        gradients = torch.autograd.grad(loss + penalty / 2 * own.square().sum(), (own, bias))
        assert max(one.abs().max().item() for one in gradients) == pytest.approx(known.item(), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 28])  # 28: two choices, were the tolerance of the choice 1e-2
def test_the_same_penalty_is_chosen(seed: int) -> None:
    """Scores agree to the tolerance of the choice, and what is chosen is best by scikit-learn's scores too."""
    x, y = blobs(150, dim=10, classes=5, seed=seed)
    first, second = (fit_linear_probe(x, y, order=order, seed=seed) for order in ("at_once", "in_turn"))
    assert first.l2 == second.l2 and torch.equal(first.weight, second.weight)
    assert [one.l2 for one in first.scores] == [one.l2 for one in second.scores]
    held_out = validation_split(y, seed=seed)
    mean, scale = x[~held_out].mean(0), x[~held_out].std(0, correction=0)
    train, asked = ((x[rows] - mean) / scale for rows in (~held_out, held_out))
    accuracies = {}
    for score, other in zip(first.scores, second.scores, strict=True):
        assert score.accuracy == pytest.approx(other.accuracy, abs=1.01 / int(held_out.sum()))
        solver = LogisticRegression(C=1 / (len(train) * score.l2), tol=1e-10, max_iter=100_000)
        solver.fit(train.numpy(), y[~held_out].numpy())
        accuracies[score.l2] = solver.score(asked.numpy(), y[held_out].numpy())
    assert accuracies[first.l2] >= max(accuracies.values()) - 1.01 / int(held_out.sum())
    assert len(set(accuracies.values())) > 1


def test_fp32_ends_at_rounding() -> None:
    """A tolerance that fp32 cannot reach is no endless loop."""
    z, y = blobs(60, dim=5, classes=3, seed=5)
    weight = torch.full((60,), 1 / 60)
    _, _, largest = minimise_together(
        z.float(), y, weight, num_classes=3, penalties=(1e-2, 1e-3), tolerances=(1e-12, 1e-12)
    )
    assert bool((largest < 1e-5).all())


def test_auto_looks_at_device_size_and_memory() -> None:
    z = torch.zeros(500, 40)
    assert together_pays(z, num_classes=10, penalties=len(L2_GRID), free=1e9)
    assert not together_pays(z, num_classes=1 << 20, penalties=len(L2_GRID), free=1e15)
    needed = 2 * 20 * len(L2_GRID) * 10 * 41 * 4
    assert together_pays(z, num_classes=10, penalties=len(L2_GRID), free=4 * needed)
    assert not together_pays(z, num_classes=10, penalties=len(L2_GRID), free=4 * needed - 4)
    x, y = blobs(60, dim=5, classes=3, seed=6)
    for order, called in (("auto", False), ("at_once", True), ("in_turn", False)):
        with pytest.MonkeyPatch.context() as patch:
            calls: list[int] = []

            def counted(*args, calls=calls, **options):  # type: ignore[no-untyped-def]
                calls.append(len(options["penalties"]))
                return minimise_together(*args, **options)

            patch.setattr("scalefast.evaluation._logistic.minimise_together", counted)
            fit_linear_probe(x, y, order=order)
        assert calls == ([len(L2_GRID), 1] if called else [1] * (len(L2_GRID) + 1))


def test_a_start_near_the_optimum_saves_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = blobs(120, dim=8, classes=3, seed=8)
    weight = torch.full((120,), 1 / 120, dtype=z.dtype)
    evaluations: list[int] = []
    real = together._State.evaluate

    def counted(self: together._State, point: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        evaluations.append(len(point))
        return real(self, point, penalty)

    monkeypatch.setattr(together._State, "evaluate", counted)
    how = {"num_classes": 3, "penalties": (1e-2, 1e-3), "tolerances": (1e-8, 1e-9)}
    w, b, _ = minimise_together(z, y, weight, **how)
    from_zero = sum(evaluations)
    evaluations.clear()
    other_w, other_b, largest = minimise_together(z, y, weight, **how, start=(w + 1e-6, b))
    assert sum(evaluations) < from_zero / 2 and bool((largest <= torch.tensor(how["tolerances"])).all())
    torch.testing.assert_close(other_w, w, atol=1e-5, rtol=0)
    torch.testing.assert_close(other_b - other_b.mean(), b - b.mean(), atol=1e-5, rtol=0)
    evaluations.clear()
    minimise_together(z, y, weight, **how, start=(other_w, other_b))
    assert evaluations == [2]


def test_an_unknown_order_is_named() -> None:
    x, y = blobs(20, dim=3, classes=2, seed=7)
    with pytest.raises(InputError, match="order must be one of auto, in_turn, at_once, got 'parallel'"):
        fit_linear_probe(x, y, order="parallel")
