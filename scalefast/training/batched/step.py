"""One step of several models: computed anew each time, or as one CUDA graph.

Shapes: `G` models.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.training.bank import Batch
from scalefast.training.batched.task import Drawn, StackedTask
from scalefast.training.batched.weights import StackedWeights
from scalefast.training.first_steps import starts_in_fp32
from scalefast.training.session import Session
from scalefast.training.step import capture_graph, captures

__all__ = ["StackedStep"]

_EAGER = "steps are not captured in a CUDA graph: "


class _Cohort(NamedTuple):
    """Neighbouring models of one seed and one dropout, which draw the same numbers."""

    models: slice
    state: Tensor
    """int64 [2]: seed and step."""


class StackedStep:
    """Takes the steps of several sessions at once.

    Args:
        sessions: of one shape and one step, neighbours in the order of (seed, dropout); their tasks' weights become
            those of the stack.
        say: is told if the steps are not captured in a CUDA graph where they might have been.
    """

    def __init__(self, sessions: Sequence[Session], *, say: Callable[[str], None] = lambda _: None) -> None:
        self._sessions, self._say, first = sessions, say, sessions[0]
        self._device, self._bank = first.world.device, first.bank
        self._capturing, reason = captures(device=self._device, processes=1)
        if reason:
            say(_EAGER + reason)
        self.weights = StackedWeights(
            [session.task for session in sessions],
            optimizers=[session.optimizer for session in sessions],
            configs=[session.config for session in sessions],
            captured=self._capturing,
        )
        self._task = StackedTask([session.task for session in sessions])
        self._cohorts = [self._cohort(models) for models in cohorts_of(sessions)]
        self._done, self._in_fp32 = first.start, False
        self._buffers: list[Batch] = []
        self._replay: Callable[[], Tensor] | None = None

    def plans(self) -> list[Session]:
        """One session of each cohort, whose batches all of it sees."""
        return [self._sessions[cohort.models.start] for cohort in self._cohorts]

    def __call__(self, batches: Sequence[Batch], *, rates: Sequence[float]) -> Tensor:
        """Train every model on the batch of its cohort, at its learning rate.

        Returns:
            [8, G]: the fields of `PretrainingLosses`, in their order; the next step overwrites them.
        """
        self.weights.set_rates(rates)
        self._in_fp32 = starts_in_fp32(self._done, precision=self._sessions[0].config.precision)
        self._done += 1
        if self._capturing and self._replay is None and not self._in_fp32:
            self._prepare(batches)
        if self._replay is None:
            return self._compute(batches)
        for batch, buffer in zip(batches, self._buffers, strict=True):
            for part, place in zip(batch, buffer, strict=True):
                if part is not None and place is not None:
                    place.copy_(part)
        return self._replay()

    def _compute(self, batches: Sequence[Batch]) -> Tensor:
        """Views, forward, backward, update; advances the steps on the device."""
        drawn = [self._draw(cohort, batch) for cohort, batch in zip(self._cohorts, batches, strict=True)]
        with contextlib.nullcontext() if self._in_fp32 else self._sessions[0].autocast:
            losses = self._task.losses(self.weights.views(), drawn)
        (gradient,) = torch.autograd.grad(losses[0].sum(), [self.weights.matrix])
        self.weights.update(gradient)
        for cohort in self._cohorts:
            cohort.state[1] += 1
        return losses.detach()

    def _cohort(self, models: slice) -> _Cohort:
        session = self._sessions[models.start]
        return _Cohort(models, torch.tensor([session.config.seed, session.start], device=self._device))

    def _draw(self, cohort: _Cohort, batch: Batch) -> Drawn:
        """What one model of this seed would draw; masks of one word, by each model's own ratio."""
        tasks = [session.task for session in self._sessions[cohort.models]]
        rng = RandomState(cohort.state, batch.rows)
        views = self._sessions[0].config.views
        features, positions = (
            part.flatten(0, 1).to(self.weights.matrix.dtype)
            for part in self._bank.sets(batch, views=views, rng=rng)
        )
        sets = (2 * batch.rows[:, None] + torch.arange(2, device=self._device)).flatten()
        drawing = rng.with_rows(sets)
        by_ratio = {
            ratio: kernels.draw_mask(drawing, clips=views, probability=ratio)
            for ratio in {task.mask_ratio for task in tasks}
        }
        return Drawn(
            models=cohort.models,
            inputs=tasks[0].model.inputs(features),
            positions=tasks[0].model.seen(positions),
            places=positions,
            masks=torch.stack([by_ratio[task.mask_ratio] for task in tasks]),
            rng=rng.with_rows(sets.repeat(len(tasks))),
        )

    def _prepare(self, batches: Sequence[Batch]) -> None:
        """Capture, and undo what the capture's own steps changed."""
        self._capturing = False
        changing = [*self.weights.changing(), *(cohort.state for cohort in self._cohorts)]
        before = [tensor.clone() for tensor in changing]
        self._buffers = [
            Batch._make(None if part is None else part.clone() for part in batch) for batch in batches
        ]
        try:
            self._replay = capture_graph(lambda: self._compute(self._buffers))
        except RuntimeError as error:  # what CUDA and PyTorch raise on a capture that cannot be
            self._say(_EAGER + str(error).strip().partition("\n")[0])
        for tensor, kept in zip(changing, before, strict=True):
            tensor.copy_(kept)


def cohorts_of(sessions: Sequence[Session]) -> list[slice]:
    """Neighbours of one seed and one dropout."""
    found, start = [], 0
    for _, members in itertools.groupby(sessions, lambda one: (one.config.seed, one.config.dropout)):
        stop = start + len(list(members))
        found.append(slice(start, stop))
        start = stop
    return found
