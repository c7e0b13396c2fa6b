"""One step of a run: computed anew each time, or as a CUDA graph that is captured once and replayed.

A step is so small (a millisecond on an H100) that Python and launches would take longer than the arithmetic. In a graph
the host does three things a step: it copies the batch (of a resident bank that is its rows), sets the learning rate
and starts the replay.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalefast.errors import InputError
from scalefast.kernels import RandomState
from scalefast.pretraining import PretrainingLosses
from scalefast.training.bank import Batch
from scalefast.training.first_steps import fp32_forward, starts_in_fp32
from scalefast.training.gradients import GradientAverage
from scalefast.training.schedule import set_learning_rate

if TYPE_CHECKING:
    from scalefast.training.session import Session

__all__ = ["Step", "capture_graph", "captures"]

Result = TypeVar("Result")

_WARM_UP = 3
"""Steps before the capture, as PyTorch asks: libraries choose algorithms and kernels are compiled. They are undone."""


def captures(*, device: torch.device, processes: int) -> tuple[bool, str]:
    """Whether a run on `device` is captured in a CUDA graph, and why not if it might have been.

    Raises:
        InputError: SCALEFAST_CUDA_GRAPHS is neither 0 nor 1.
    """
    wish = os.environ.get("SCALEFAST_CUDA_GRAPHS", "1")
    if wish not in ("0", "1"):
        raise InputError(f"SCALEFAST_CUDA_GRAPHS must be 0 or 1; got {wish!r}")
    if device.type != "cuda":
        return False, ""
    if wish == "0":
        return False, "SCALEFAST_CUDA_GRAPHS=0"
    if processes > 1 and (backend := dist.get_backend()) != "nccl":
        return False, f"{processes} processes exchange gradients by {backend}, and only NCCL can be captured"
    return True, ""


class Step:
    """Takes the steps of a session, one after the other."""

    def __init__(self, session: Session) -> None:
        self._session = session
        device, config = session.world.device, session.config
        # Seed and step live on the device and are advanced there: all randomness of a step is a function of them.
        self.state = torch.tensor([config.seed, session.start], device=device)
        self._done, self._in_fp32 = session.start, False
        self._parameters = session.task.trained_parameters()
        self._average = GradientAverage(self._parameters, processes=session.world.size)
        self._shares = session.plan.shares(session.world.size) if session.bank.even else None
        self._buffer: Batch | None = None
        self._replay: Callable[[], PretrainingLosses] | None = None
        self._capturing, reason = captures(device=device, processes=session.world.size)
        if self._capturing and not session.bank.even:
            self._capturing, reason = False, "batches leave out videos that cannot be decoded"
        if reason:
            session.progress.say(f"steps are not captured in a CUDA graph: {reason}")

    def __call__(self, batch: Batch, *, learning_rate: float) -> PretrainingLosses:
        """Train on this batch; the losses returned are overwritten by the next step."""
        set_learning_rate(self._session.optimizer, learning_rate)
        self._in_fp32 = starts_in_fp32(self._done, precision=self._session.config.precision)
        self._done += 1
        if self._capturing and self._replay is None and not self._in_fp32:
            self._prepare(batch)
        if self._replay is None or self._buffer is None:
            return self._compute(batch)
        for part, place in zip(batch, self._buffer, strict=True):
            if part is not None and place is not None:
                place.copy_(part)
        return self._replay()

    def _compute(self, batch: Batch) -> PretrainingLosses:
        """Views, forward, backward, update; advances the step on the device and waits for nothing."""
        session = self._session
        config, task, optimizer = session.config, session.task, session.optimizer
        rng = RandomState(self.state, batch.rows)
        features, positions = session.bank.sets(batch, views=config.views, rng=rng)
        with fp32_forward(task) if self._in_fp32 else session.autocast:
            losses = task(features, positions, rng=rng, shares=self._shares)
        losses.loss.backward()
        self._average.finish()
        if config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, config.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.state[1] += 1
        return losses

    def _prepare(self, batch: Batch) -> None:
        """Warm up, capture, and undo both: the run's first step is a replay as all others, resumed or not."""
        self._capturing = False
        before = {key: tensor.clone() for key, tensor in self._everything().items()}
        self._buffer = buffer = Batch._make(None if part is None else part.clone() for part in batch)
        reason = ""
        try:
            self._replay = capture_graph(lambda: self._compute(buffer))
        except RuntimeError as error:  # what CUDA and PyTorch raise on a capture that cannot be
            self._session.optimizer.zero_grad(set_to_none=True)
            self._average.forget()
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        # All processes replay, or none does: who computes anew is slower, and the others would wait for it in a graph.
        if any(reasons := self._session.world.on_every(lambda: reason)):
            self._replay = None
            self._session.progress.say(
                f"steps are not captured in a CUDA graph: {next(filter(None, reasons))}"
            )
        for key, tensor in self._everything().items():
            if key in before:
                tensor.copy_(before[key])
            else:
                tensor.zero_()  # a moment that the optimiser made on the way

    def _everything(self) -> dict[tuple[str, int], Tensor]:
        """All that a step changes."""
        found: dict[tuple[str, int], Tensor] = {("state", 0): self.state}
        optimizer, task = self._session.optimizer, self._session.task
        for i, tensor in enumerate([*task.parameters(), *task.buffers()]):
            found["weight", i] = tensor.detach()
        for i, parameter in enumerate(self._parameters):
            for name, tensor in optimizer.state.get(parameter, {}).items():
                found[name, i] = tensor
        return found


def capture_graph(compute: Callable[[], Result]) -> Callable[[], Result]:
    """A CUDA graph of `compute`, which is called a few times on the way: whatever it changes is the caller's to undo.

    Returns:
        What replays it, and returns what the captured call returned, overwritten.

    Raises:
        RuntimeError: it cannot be captured.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            compute()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Only this thread's calls are held to what a capture allows: a streamed bank copies in another one meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = compute()

    def replay() -> Result:
        graph.replay()
        return result

    return replay
