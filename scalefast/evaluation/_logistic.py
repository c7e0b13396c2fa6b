"""The solver under the linear probe: full-batch L-BFGS along a path of penalties, or for all of them at once.

Legend: `R` rows, `D` feature, `r` min(R, D), `C` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scalefast.evaluation._logistic_together import minimise_together, together_pays
from scalefast.training.bank.placing import free_memory

__all__ = ["LogisticFit", "Order", "solve_logistic"]

Order = Literal["auto", "in_turn", "at_once"]
"""Whether penalties are solved one after another, each from the last, or all at once; "auto": what is expected to be
faster."""


@dataclass(frozen=True, kw_only=True)
class LogisticFit:
    """Optimum for one penalty."""

    weight: Tensor
    """`[C, D]` for features as they were given."""
    bias: Tensor
    """`[C]`."""
    gradient: float
    """Largest absolute entry of the gradient at the solution."""


def solve_logistic(
    x: Tensor,
    y: Tensor,
    row_weight: Tensor,
    *,
    num_classes: int,
    penalties: Sequence[float],
    tolerance: float = 1e-5,
    order: Order = "auto",
) -> Iterator[LogisticFit]:
    """Minimise `(row_weight * cross_entropy(z @ W.T + b, y)).sum() + l2 / 2 * W.square().sum()` per penalty.

    z is x standardised by the (weighted) mean and deviation of its columns. In turn each solution starts from the
    one before, so penalties given from large to small cost a few iterations each; at once all start from zero.

    Args:
        x: `[R, D]`, fp32 or fp64; the computation runs in its dtype.
        y: `[R]` int64 in 0..C-1.
        row_weight: `[R]`, sums to 1.
        num_classes: C.
        penalties: values of l2.
        tolerance: each entry of the gradient ends below `tolerance * min(l2, 1)`: the objective bends by at
            least l2 in every direction, so the solution is within about the tolerance of the optimum at
            every penalty.
        order: in turn or at once; the solutions agree to within the tolerance.

    Yields:
        One solution a penalty, in their order.
    """
    row_weight = row_weight.to(x.dtype)
    mean = row_weight @ x
    scale = (row_weight @ (x - mean).square()).sqrt()
    constant = scale <= 1e-8 * (1 + mean.abs())
    scale = scale.masked_fill(constant, 1.0)
    z = (x - mean) / scale
    basis = None
    if len(z) < z.shape[1]:
        # The optimum lies in the span of the rows, and a rotation changes neither logits nor penalty: solve
        # in R dimensions instead of D. z = reduced @ basis.T, exact.
        basis, upper = torch.linalg.qr(z.T)
        z = upper.T.contiguous()
    tolerances = [tolerance * min(penalty, 1.0) for penalty in penalties]
    if order == "at_once" or (
        order == "auto"
        and z.device.type == "cuda"
        and len(penalties) > 1
        and together_pays(z, num_classes=num_classes, penalties=len(penalties), free=free_memory(z.device))
    ):
        found = minimise_together(
            z, y, row_weight, num_classes=num_classes, penalties=penalties, tolerances=tolerances
        )
        solved: Iterable[tuple[Tensor, Tensor, Tensor]] = zip(*found, strict=True)
    else:
        solved = _in_turn(z, y, row_weight, num_classes, penalties, tolerances)
    for weight, bias, gradient in solved:
        unscaled = (weight if basis is None else weight @ basis.T) / scale
        yield LogisticFit(weight=unscaled, bias=bias - unscaled @ mean, gradient=float(gradient))


def _in_turn(
    z: Tensor,
    y: Tensor,
    row_weight: Tensor,
    num_classes: int,
    penalties: Sequence[float],
    tolerances: Sequence[float],
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    start: tuple[Tensor, Tensor] | None = None
    for penalty, tolerance in zip(penalties, tolerances, strict=True):
        weight, bias, gradient = minimise_together(
            z,
            y,
            row_weight,
            num_classes=num_classes,
            penalties=[penalty],
            tolerances=[tolerance],
            start=start,
        )
        start = weight, bias
        yield weight[0], bias[0], gradient[0]
