"""Losses of the steps since the last line of the log, left on the device until somebody wants to read
them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scalefast.errors import DivergedError, TrainingError
from scalefast.objective import Objective, PretrainingLosses

__all__ = ["METRICS", "Meter", "metrics_of"]

METRICS = ("loss", "mcm_loss", "set_loss", "time_loss", "mcm_accuracy", "set_accuracy", "time_accuracy")
"""What the log may hold of a step, in this order; accuracies in [0, 1]."""


def metrics_of(objective: Objective) -> tuple[str, ...]:
    """Those of `METRICS` that a run computes."""
    return tuple(name for name in METRICS if objective.time_weight or not name.startswith("time_"))


class Meter:
    """Collects the metrics of every step without waiting for the device; `read` is the only synchronisation.

    Args:
        names: which of `METRICS`.
        step: steps completed so far.
        rows: metrics of the steps before that which no line of the log holds yet (from a checkpoint).
        last_good: names the checkpoint that an error advises to go on from.
    """

    def __init__(
        self,
        *,
        last_good: Callable[[], str],
        names: Sequence[str] = METRICS,
        step: int = 0,
        rows: Sequence[Sequence[float]] = (),
    ) -> None:
        self._last_good, self._names = last_good, names
        self._step = step  # completed steps that `_rows` reaches up to
        self._rows = [list(row) for row in rows]
        self._waiting: list[Tensor] = []

    def add(self, losses: PretrainingLosses) -> None:
        """Take the losses of the next step."""
        values = [getattr(losses, name).detach().float() for name in self._names]
        self._waiting.append(torch.stack([*values, losses.overflow.float()]))

    def read(self) -> list[list[float]]:
        """Metrics of all steps since `mean` was last called, oldest first.

        Raises:
            DivergedError: the loss of a step is not finite; step, loss and checkpoint are named.
            TrainingError: masked clips were left out of it.
        """
        fresh = torch.stack(self._waiting).tolist() if self._waiting else []
        self._waiting.clear()
        for *row, overflow in fresh:
            self._step += 1
            if overflow:
                raise TrainingError(
                    f"at step {self._step} more clips were masked than the static number of rows holds, so that the "
                    f"loss lacks some of them: the run stops. Last good checkpoint: {self._last_good()}. A draw of "
                    "the mask should never do this (6 sigma): please report it."
                )
            if not all(math.isfinite(value) for value in row):
                told = ", ".join(f"{name} {value:g}" for name, value in zip(self._names, row, strict=True))
                raise DivergedError(
                    f"the loss is not finite at step {self._step} ({told}): the run stops. Last good "
                    f"checkpoint: {self._last_good()}. Try a smaller learning_rate, clip_grad_norm=1.0 or "
                    "precision='fp32'."
                )
            self._rows.append(row)
        return self._rows

    def mean(self) -> dict[str, float]:
        """Mean of every metric over those steps, which are then forgotten; the arithmetic is that of
        Python floats."""
        rows = self.read()
        means = {name: math.fsum(row[i] for row in rows) / len(rows) for i, name in enumerate(self._names)}
        self._rows = []
        return means
