"""The linear probe for one penalty, or for many at once: L-BFGS whose every pass over the rows serves all of them.

Legend: `R` rows, `r` columns, `C` classes, `L` penalties, `A` of them not solved yet, `P` = C (r + 1) unknowns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["minimise_together", "together_pays"]

HISTORY = 20
MAX_ITERATIONS, MAX_HALVINGS = 1000, 30
MAX_IDLE = 10
"""Iterations without a lower objective after which rounding is taken to have the last word."""
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step must reach (Armijo)."""

CHUNK_ELEMENTS = 1 << 24
"""Logits that are alive at a time: 64 MiB in fp32, whatever the number of rows."""

_SMALL = 1 << 32
"""Multiplications of one penalty's pass over the rows up to which all at once is expected to be faster on a GPU:
about a tenth of a millisecond there, as long as launching it takes (not yet measured). Above, products decide, and
solving in turn, each from the last, needs fewer. On a CPU the two take the same time on small sets, and in turn less
on large ones (docs/evaluation.md)."""

_SHARE = 0.25
"""Share of the free memory that the past steps of all penalties may take."""


def together_pays(z: Tensor, *, num_classes: int, penalties: int, free: float) -> bool:
    """Whether all penalties at once are expected to be faster on a GPU, and their past steps fit.

    Args:
        z: `[R, r]`.
        num_classes: C.
        penalties: L.
        free: bytes of memory.
    """
    unknowns = num_classes * (z.shape[1] + 1)
    needed = 2 * HISTORY * penalties * unknowns * z.element_size()
    return z.numel() * num_classes <= _SMALL and needed <= _SHARE * free


def minimise_together(
    z: Tensor,
    y: Tensor,
    row_weight: Tensor,
    *,
    num_classes: int,
    penalties: Sequence[float],
    tolerances: Sequence[float],
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise `(row_weight * cross_entropy(z @ W.T + b, y)).sum() + l2 / 2 * W.square().sum()` for every l2.

    The products of all penalties are one: `z @ [W_1 ... W_A].T`, some rows at a time. Each penalty has its own past
    steps and step length, and leaves when it is solved.

    Args:
        z: `[R, r]`.
        y: `[R]` int64 in 0..C-1.
        row_weight: `[R]`, sums to 1.
        num_classes: C.
        penalties: values of l2.
        tolerances: no entry of a solution's gradient exceeds its own, unless rounding stops it before.
        start: `[L, C, r]` weights and `[L, C]` biases to start from; None: zeros.

    Returns:
        `[L, C, r]` weights, `[L, C]` biases, and `[L]`, the largest absolute entry of each gradient.
    """
    with torch.no_grad():
        if start is None:
            point = z.new_zeros(len(penalties), num_classes * (z.shape[1] + 1))
        else:
            point = torch.cat([part.flatten(1) for part in start], dim=1)
        state = _State(
            z, y, row_weight, num_classes, z.new_tensor(penalties), z.new_tensor(tolerances), point
        )
        for _ in range(MAX_ITERATIONS):
            if not state.drop_solved():
                break
            state.step()
        state.finish()
    weight, bias = state.found.split([num_classes * z.shape[1], num_classes], dim=1)
    return weight.unflatten(1, (num_classes, -1)), bias, state.largest


class _State:
    """All penalties; those that are not solved yet stand in `point`, `value` and so on."""

    def __init__(
        self,
        z: Tensor,
        y: Tensor,
        row_weight: Tensor,
        classes: int,
        penalty: Tensor,
        tolerance: Tensor,
        point: Tensor,
    ) -> None:
        self.z, self.y, self.row_weight, self.classes = z, y, row_weight, classes
        self.penalty, self.tolerance = penalty, tolerance
        self.point = point
        self.found, self.largest = point.clone(), torch.zeros_like(penalty)
        self.number = torch.arange(len(penalty), device=z.device)
        self.stuck = torch.zeros_like(penalty, dtype=torch.bool)
        self.idle = torch.zeros_like(self.number)
        self.value, self.gradient = self.evaluate(point, penalty)
        self.lowest = self.value
        self.past: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
        """Steps and changes of the gradient `[A, P]`, and 1 / their products `[A]`."""

    def evaluate(self, point: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Objective `[A]` and gradient `[A, P]` at `[A, P]`."""
        count, split = len(point), self.classes * self.z.shape[1]
        weight, bias = point[:, :split].reshape(count * self.classes, -1), point[:, split:].flatten()
        value = penalty / 2 * point[:, :split].square().sum(1)
        by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        rows = max(1, CHUNK_ELEMENTS // len(weight))
        for z, y, share in zip(
            *(part.split(rows) for part in (self.z, self.y, self.row_weight)), strict=True
        ):
            logits = torch.addmm(bias, z, weight.T).unflatten(1, (count, -1))
            total = logits.logsumexp(2)
            own = y[:, None, None].expand(-1, count, 1)
            value += share @ (total - logits.gather(2, own)[..., 0])
            excess = (
                logits.sub_(total[..., None])
                .exp_()
                .scatter_add_(2, own, -torch.ones_like(own, dtype=z.dtype))
            )
            excess = excess.mul_(share[:, None, None]).flatten(1)
            by_weight.addmm_(excess.T, z)
            by_bias += excess.sum(0)
        gradient = torch.cat([by_weight.view(count, -1), by_bias.view(count, -1)], dim=1)
        gradient[:, :split].addcmul_(penalty[:, None], point[:, :split])
        return value, gradient

    def drop_solved(self) -> bool:
        """Put away what is solved; whether something is left."""
        left = (self.gradient.abs().amax(1) > self.tolerance) & ~self.stuck
        if bool(left.all()):
            return True
        self.put_away(~left)
        for name in (
            "penalty",
            "tolerance",
            "point",
            "number",
            "stuck",
            "idle",
            "value",
            "lowest",
            "gradient",
        ):
            setattr(self, name, getattr(self, name)[left])
        past = [tuple(part[left] for part in one) for one in self.past]
        self.past = deque(past, maxlen=HISTORY)  # type: ignore[arg-type]
        return len(self.point) > 0

    def put_away(self, which: Tensor) -> None:
        """Note the points as they are."""
        self.found[self.number[which]] = self.point[which]
        self.largest[self.number[which]] = self.gradient[which].abs().amax(1)

    def finish(self) -> None:
        """Note those too that are not solved after all iterations."""
        self.put_away(torch.ones_like(self.stuck))

    def step(self) -> None:
        """One iteration of L-BFGS for each."""
        direction = self.direction()
        slope = (direction * self.gradient).sum(1)
        uphill = slope >= 0  # by rounding alone: the objective is strictly convex
        direction = torch.where(uphill[:, None], -self.gradient, direction)
        slope = torch.where(uphill, -self.gradient.square().sum(1), slope)
        point, value, gradient, moved = self.search(direction, slope)
        change, bend = point - self.point, gradient - self.gradient
        product = (change * bend).sum(1)
        inverse = torch.where(product > 0, 1 / product, 0.0)
        self.past.append((change, bend, inverse))
        self.idle = torch.where(value < self.lowest, 0, self.idle + 1)
        self.lowest = torch.minimum(self.lowest, value)
        self.stuck = ~moved | (self.idle >= MAX_IDLE)
        self.point, self.value, self.gradient = point, value, gradient

    def direction(self) -> Tensor:
        """`[A, P]`: minus the gradient, times what the past steps say of the inverse Hessian."""
        q = self.gradient.clone()
        if not self.past:
            return -q * (1 / q.abs().sum(1)).clamp(max=1.0)[:, None]
        factors = []
        for change, bend, inverse in reversed(self.past):
            factors.append(inverse * (change * q).sum(1))
            q.addcmul_(factors[-1][:, None], bend, value=-1)
        _, bend, inverse = self.past[-1]
        scale = 1 / (inverse * bend.square().sum(1))
        q *= torch.where(inverse > 0, scale, 1.0)[:, None]
        for (change, bend, inverse), factor in zip(self.past, reversed(factors), strict=True):
            q.addcmul_((factor - inverse * (bend * q).sum(1))[:, None], change)
        return -q

    def search(self, direction: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From step 1 down, until every point has gone down enough: points, values, gradients, and which have moved."""
        point, value, gradient = self.point.clone(), self.value.clone(), self.gradient.clone()
        length, slack = torch.ones_like(slope), 4 * torch.finfo(slope.dtype).eps * self.value.abs()
        pending = torch.arange(len(slope), device=slope.device)
        for _ in range(MAX_HALVINGS):
            trial = self.point[pending] + length[pending, None] * direction[pending]
            reached, bent = self.evaluate(trial, self.penalty[pending])
            allowed = self.value[pending] + SUFFICIENT * length[pending] * slope[pending] + slack[pending]
            down = reached <= allowed
            done = pending[down]
            point[done], value[done], gradient[done] = trial[down], reached[down], bent[down]
            pending = pending[~down]
            if not len(pending):
                break
            length[pending] *= 0.5
        moved = torch.ones_like(self.stuck)
        moved[pending] = False
        return point, value, gradient, moved & (point != self.point).any(1)
