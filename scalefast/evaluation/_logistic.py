"""The solver under the linear probe: full-batch L-BFGS along a path of penalties, or for all of them at once.

Legend: `R` rows, `D` feature, `r` min(R, D), `C` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.evaluation._logistic_together import minimise_together, together_pays
from scalefast.training.bank.placing import free_memory

__all__ = ["LogisticFit", "Order", "solve_logistic"]

Order = Literal["auto", "in_turn", "at_once"]
"""Whether penalties are solved one after another, each from the last, or all at once; "auto": what is expected to be
faster."""

MAX_ITERATIONS = 1000


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
        solved: Iterable[tuple[Tensor, Tensor, Tensor | float]] = zip(*found, strict=True)
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
) -> Iterator[tuple[Tensor, Tensor, float]]:
    weight, bias = z.new_zeros(num_classes, z.shape[1]), z.new_zeros(num_classes)
    for penalty, tolerance in zip(penalties, tolerances, strict=True):
        weight, bias, gradient = _minimise(z, y, row_weight, penalty, weight, bias, tolerance)
        yield weight, bias, gradient


def _minimise(
    z: Tensor, y: Tensor, row_weight: Tensor, penalty: float, weight: Tensor, bias: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    """L-BFGS from `weight [C, r]`, `bias [C]` until no entry of the gradient exceeds the tolerance."""
    with torch.inference_mode(False), torch.enable_grad():
        weight = weight.clone().requires_grad_()
        bias = bias.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=MAX_ITERATIONS,
            max_eval=2 * MAX_ITERATIONS,
            history_size=20,
            tolerance_grad=tolerance,
            tolerance_change=1e-16 if z.dtype == torch.float64 else 1e-10,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            optimizer.zero_grad()
            loss = row_weight @ F.cross_entropy(z @ weight.T + bias, y, reduction="none")
            loss = loss + penalty / 2 * weight.square().sum()
            torch.autograd.backward(loss)
            return loss

        optimizer.step(objective)
        objective()
        assert weight.grad is not None and bias.grad is not None
        gradient = max(weight.grad.abs().max().item(), bias.grad.abs().max().item())
    return weight.detach(), bias.detach(), gradient
