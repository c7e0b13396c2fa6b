"""Linear probe: multinomial logistic regression on standardised features, solved to its optimum.

The objective is convex, so there is no schedule to choose, no epoch to pick, and a result depends on its
data and one number, the L2 penalty, which is chosen on a validation split of the training videos.

Legend: `N` videos, `R` rows (videos, or the clips of videos), `D` feature, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._checks import check_classification
from scalefast.evaluation._logistic import Order, solve_logistic

__all__ = [
    "L2_GRID",
    "LinearProbe",
    "PenaltyScore",
    "fit_linear_probe",
    "linear_accuracy",
    "validation_split",
]

L2_GRID = tuple(10.0 ** (exponent / 2) for exponent in range(2, -9, -1))
"""Penalties that are tried, 10 to 1e-4 in half decades."""

DEFAULT_L2 = 1e-2
"""Penalty where the training videos allow no validation split (no class has two of them)."""


@dataclass(frozen=True, kw_only=True)
class PenaltyScore:
    """What one penalty reached on the validation split."""

    l2: float
    """The penalty."""
    accuracy: float
    """Share of validation videos classified rightly, in [0, 1]."""
    loss: float
    """Mean cross-entropy of the validation videos, in nats."""


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fitted probe."""

    weight: Tensor
    """`[C, D]`, for features as they are (the standardisation is folded in)."""
    bias: Tensor
    """`[C]`."""
    classes: Tensor
    """`[C]` int64, the class ids that occur in training, ascending."""
    l2: float
    """Penalty of the final fit, on all training videos."""
    scores: tuple[PenaltyScore, ...]
    """Validation results of every penalty; empty where there was no choice, or no split to make it on."""
    validation_videos: int
    """Videos held out to choose the penalty (they are part of the final fit)."""
    gradient: float
    """Largest absolute entry of the objective's gradient at the solution: how far it is from the optimum."""

    def logits(self, x: Tensor) -> Tensor:
        """`[R, D]` -> `[R, C]`, columns in the order of `classes`."""
        return x.to(self.weight.dtype) @ self.weight.T + self.bias

    def predict(self, x: Tensor) -> Tensor:
        """`[R, D]` -> `[R]` int64 class ids; the smallest id among equal logits."""
        return self.classes[self.logits(x).argmax(1)]


def validation_split(labels: Tensor, *, fraction: float = 0.2, seed: int = 0) -> Tensor:
    """Mark a share of every class: `[N]` int64 labels -> `[N]` bool.

    A class of one video stays in training; every other class gives at least one and keeps at least one. The
    draw is a function of seed and labels alone (numpy's Philox, keyed by the seed).
    """
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction must lie between 0 and 1, got {fraction = }")
    random = np.random.Generator(np.random.Philox(key=seed))
    names = labels.cpu().numpy()
    held_out = np.zeros(len(names), dtype=bool)
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        order = random.permutation(len(members))
        if len(members) >= 2:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held_out[members[order[:count]]] = True
    return torch.from_numpy(held_out).to(labels.device)


def fit_linear_probe(
    x: Tensor,
    y: Tensor,
    *,
    videos: Tensor | None = None,
    l2: float | Sequence[float] = L2_GRID,
    validation_fraction: float = 0.2,
    seed: int = 0,
    order: Order = "auto",
) -> LinearProbe:
    """Minimise `cross_entropy(standardised(x) @ W.T + b, y) + l2 / 2 * W.square().sum()`.

    The same as scikit-learn's `LogisticRegression(C=1 / (N * l2))` after `StandardScaler` (with two classes
    `C=2 / (N * l2)`, as it then has one weight vector instead of two opposite ones). With several
    penalties, the one with the best accuracy on a validation split of the training videos is taken (then the
    lower validation loss), and the probe is fitted again on all of them. Statistics of the standardisation
    come from the rows being fitted.

    Args:
        x: `[R, D]` features of the training rows.
        y: `[N]` int64 class ids, one a *video*.
        videos: `[R]` int64, the video of each row, if a video has several (its clips). Each video then
            counts as one, and its logits are the mean over its rows. None: a row is a video.
        l2: one penalty, or those to choose from, each above 0.
        validation_fraction: of each class's videos.
        seed: of the validation split.
        order: whether the penalties to choose from are solved in turn or all at once; the choice is the same, but
            between penalties that do equally well.

    Raises:
        InputError: shapes, dtypes or values do not fit, or all videos are of one class.
    """
    check_classification(x if videos is None else x[: len(y)], y, x)
    if videos is not None and (videos.shape != (len(x),) or len(torch.unique(videos)) != len(y)):
        raise InputError(
            f"videos must give each row one of {len(y)} videos, got {videos.shape = } for {x.shape = }"
        )
    if order not in get_args(Order):
        raise InputError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
    penalties = sorted({float(value) for value in (l2 if isinstance(l2, Sequence) else [l2])}, reverse=True)
    if not penalties or penalties[-1] <= 0:
        raise InputError(f"l2 must be above 0, got {l2!r}")
    classes, target = torch.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError("a linear probe needs at least 2 classes, but all training videos are of one")
    x = x.to(torch.float64 if x.device.type == "cpu" else torch.float32)
    rows = torch.arange(len(x), device=x.device) if videos is None else videos
    held_out = validation_split(target, fraction=validation_fraction, seed=seed)
    scores: tuple[PenaltyScore, ...] = ()
    if len(penalties) > 1 and held_out.any():
        scores = _score_penalties(x, target, rows, held_out, len(classes), penalties, order)
        chosen = max(scores, key=lambda score: (score.accuracy, -score.loss, score.l2)).l2
    else:
        chosen = penalties[0] if len(penalties) == 1 else DEFAULT_L2
    fit = next(
        iter(solve_logistic(x, target[rows], _weights(rows), num_classes=len(classes), penalties=[chosen]))
    )
    return LinearProbe(
        weight=fit.weight,
        bias=fit.bias,
        classes=classes,
        l2=chosen,
        scores=scores,
        validation_videos=int(held_out.sum()) if scores else 0,
        gradient=fit.gradient,
    )


def _weights(rows: Tensor) -> Tensor:
    """Weight of each row such that every video counts the same and all rows sum to 1."""
    _, video, count = torch.unique(rows, return_inverse=True, return_counts=True)
    return 1.0 / (len(count) * count[video].double())


def _score_penalties(
    x: Tensor,
    target: Tensor,
    rows: Tensor,
    held_out: Tensor,
    num_classes: int,
    penalties: list[float],
    order: Order,
) -> tuple[PenaltyScore, ...]:
    """Fit on the videos that are not held out, from the strongest penalty down, and score the others."""
    train = ~held_out[rows]
    share = _weights(rows[~train])
    # Logits are linear: their mean over a video's rows are those of its mean row.
    members, place = torch.unique(rows[~train], return_inverse=True)
    means = x.new_zeros(len(members), x.shape[1]).index_add_(
        0, place, x[~train] * (share * len(members)).to(x.dtype)[:, None]
    )
    truth = target[members]
    fits = solve_logistic(
        x[train],
        target[rows[train]],
        _weights(rows[train]),
        num_classes=num_classes,
        penalties=penalties,
        order=order,
        tolerance=1e-3,  # at 1e-2 the orders choose differently in 4 of 40 columns of rendered sets, here in 2
    )
    scores = []
    for penalty, fit in zip(penalties, fits, strict=True):
        logits = means @ fit.weight.T + fit.bias
        accuracy = (logits.argmax(1) == truth).double().mean().item()
        scores.append(PenaltyScore(l2=penalty, accuracy=accuracy, loss=F.cross_entropy(logits, truth).item()))
    return tuple(scores)


def linear_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    l2: float | Sequence[float] = L2_GRID,
    seed: int = 0,
) -> float:
    """Share of test rows that a probe fitted on the training rows classifies rightly, in [0, 1].

    Args:
        train_x: `[N, D]`.
        train_y: `[N]` int64.
        test_x: `[M, D]`.
        test_y: `[M]` int64.
        l2: penalty or penalties, as in `fit_linear_probe`.
        seed: of the validation split.
    """
    check_classification(train_x, train_y, test_x, test_y)
    probe = fit_linear_probe(train_x, train_y, l2=l2, seed=seed)
    return (probe.predict(test_x) == test_y).double().mean().item()
