"""Regression probe for labels that are numbers, such as LVU's like ratio and view count: ridge regression, solved
exactly.

Legend: `N` training videos, `M` test videos, `D` feature, `K` targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scalefast.errors import InputError

__all__ = ["PENALTIES", "RidgeProbe", "fit_ridge_probe"]

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(6, -9, -1))
"""Penalties that are tried, 1000 to 1e-4 in half decades."""


@dataclass(frozen=True, kw_only=True)
class RidgeProbe:
    """A fitted probe."""

    weight: Tensor
    """`[D, K]`, for features as they are."""
    bias: Tensor
    """`[K]`."""
    penalty: float
    """Of the fit, on all training videos."""
    scores: tuple[tuple[float, float], ...]
    """(penalty, mean squared error on the validation split) of every penalty; empty where there was no choice."""

    def predict(self, x: Tensor) -> Tensor:
        """`[M, D]` -> `[M, K]`, fp64."""
        return x.double() @ self.weight + self.bias


def fit_ridge_probe(
    x: Tensor,
    y: Tensor,
    *,
    penalties: tuple[float, ...] = PENALTIES,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> RidgeProbe:
    """Minimise `(standardised(x) @ W + b - y).square().sum() / N + penalty * W.square().sum()`.

    scikit-learn's `Ridge(alpha=N * penalty)` after `StandardScaler`. Of several penalties the one with the smallest
    error on a validation split of the training videos is taken, and the probe fitted again on all of them.

    Args:
        x: `[N, D]` features.
        y: `[N, K]` or `[N]` targets.
        penalties: those to choose from, each above 0.
        validation_fraction: of the videos.
        seed: of the split.

    Raises:
        InputError: shapes or values do not fit, or fewer than two videos.
    """
    targets = y[:, None] if y.ndim == 1 else y
    if x.ndim != 2 or targets.ndim != 2 or len(x) != len(targets) or len(x) < 2:
        raise InputError(
            f"a regression needs x [N, D] and y [N] or [N, K], N >= 2; got {x.shape = }, {y.shape = }"
        )
    if not penalties or min(penalties) <= 0:
        raise InputError(f"penalties must be above 0, got {penalties}")
    x, targets = x.double(), targets.double()
    if not (bool(torch.isfinite(x).all()) and bool(torch.isfinite(targets).all())):
        raise InputError("features and labels of a regression must be finite, but some are NaN or infinite")
    scores: tuple[tuple[float, float], ...] = ()
    penalty = penalties[0]
    held_out = _held_out(len(x), fraction=validation_fraction, seed=seed).to(x.device)
    if len(penalties) > 1 and int((~held_out).sum()) >= 2:
        weights, biases = _solve(x[~held_out], targets[~held_out], penalties)
        errors = (x[held_out] @ weights + biases[:, None] - targets[held_out]).square().mean((1, 2))
        scores = tuple(zip(penalties, errors.tolist(), strict=True))
        penalty = min(scores, key=lambda score: score[1])[0]
    weights, biases = _solve(x, targets, (penalty,))
    return RidgeProbe(weight=weights[0], bias=biases[0], penalty=penalty, scores=scores)


def _solve(x: Tensor, y: Tensor, penalties: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """All penalties by one decomposition: weights `[P, D, K]` for x as it is, and biases `[P, K]`."""
    centre, middle = x.mean(0), y.mean(0)
    deviation = x.std(0, correction=0)
    scale = torch.where(
        deviation > 1e-12 * (1 + centre.abs()), deviation, torch.inf
    )  # a constant says nothing
    u, singular, vh = torch.linalg.svd((x - centre) / scale, full_matrices=False)
    along = u.T @ (y - middle)
    each = torch.tensor(penalties, dtype=x.dtype, device=x.device)[:, None] * len(x)
    shrunk = (singular / (singular.square() + each))[..., None] * along
    weights = (vh.T @ shrunk) / scale[:, None]
    return weights, middle - torch.einsum("d,pdk->pk", centre, weights)


def _held_out(count: int, *, fraction: float, seed: int) -> Tensor:
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction must lie between 0 and 1, got {fraction = }")
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(count)
    held_out = torch.zeros(count, dtype=torch.bool)
    held_out[torch.from_numpy(order[: max(1, round(fraction * count))])] = True
    return held_out
