"""The processes of a run: one, or those that `torchrun` started (RANK, LOCAL_RANK, WORLD_SIZE)."""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from scalefast._text import counted
from scalefast.errors import InputError, TrainingError
from scalefast.training.gradients import average_gradients

__all__ = ["World", "join_world"]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class World:
    """Which process this is, of how many, and where it computes."""

    rank: int
    """Number of this process, from 0."""

    size: int
    """Number of processes."""

    device: torch.device
    """Where this process trains."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and talks to the user."""
        return self.rank == 0

    def on_main(self, action: Callable[[], Result]) -> Result:
        """What `action` returns in process 0, where alone it runs, for all processes; it must be picklable.

        Raises:
            TrainingError: in every other process, where `action` raised in process 0 (which raises what it
                raised): all of them stop, none waits for ever.
        """
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        failure: Exception | None = None
        if self.is_main:
            try:
                outcome[0] = action()
            except Exception as error:
                failure, outcome[1] = error, str(error)
        dist.broadcast_object_list(outcome, src=0, device=self.device if self.device.type == "cuda" else None)
        if failure is not None:
            raise failure
        if outcome[1] is not None:
            raise TrainingError(f"process {self.rank} stops, since process 0 stopped: {outcome[1]}")
        return outcome[0]

    def on_every(self, action: Callable[[], Result]) -> list[Result]:
        """What `action` returns in each process, in the order of their ranks, in all of them; it must be picklable.

        Raises:
            TrainingError: where `action` raised in another process (this one raises what it raised itself): all of
                them stop, none waits for ever.
        """
        if self.size == 1:
            return [action()]
        mine: tuple[Any, str | None]
        failure: Exception | None = None
        try:
            mine = (action(), None)
        except Exception as error:
            failure, mine = error, (None, str(error))
        outcomes: list[Any] = [None] * self.size
        dist.all_gather_object(outcomes, mine)
        if failure is not None:
            raise failure
        for rank, (_, reason) in enumerate(outcomes):
            if reason is not None:
                raise TrainingError(f"process {self.rank} stops, since process {rank} stopped: {reason}")
        return [result for result, _ in outcomes]

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, after a backward pass; see `training.gradients`."""
        average_gradients(parameters, processes=self.size)


def join_world(device: str | torch.device | None = None) -> World:
    """The processes of this run; the process is alone unless `torchrun` or the caller says otherwise.

    A process group that the caller has initialised is used. Under `torchrun` one is initialised (NCCL on
    CUDA, else Gloo) and stays until the process ends: a second group would meet the first one's addresses in
    torchrun's store and hang or fail, now and then (seen with Gloo, torch 2.13).

    Args:
        device: where to train; None takes the GPU of this process (LOCAL_RANK) if there is one, else the CPU.

    Raises:
        InputError: a device that is not there.
    """
    place = _device(device)
    on_gpu = place.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(place)
    if not _initialised() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Imported first, although not used: its functions take the default group as a default argument, which Python
        # evaluates at import. After the group is there (torch.optim imports it) they would hold the group past its
        # destruction, and a Gloo group that lives until the interpreter ends aborts it ("terminate called without an
        # active exception": 1 exit in 4 with 3 processes, torch 2.13, 2026-11-21).
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=place if on_gpu else None)
        atexit.register(_leave_world)
    if _initialised():
        return World(rank=dist.get_rank(), size=dist.get_world_size(), device=place)
    return World(rank=0, size=1, device=place)


def _leave_world() -> None:
    if _initialised():
        dist.destroy_process_group()


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}; expected 'cpu', 'cuda' or 'cuda:<number>'") from error
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(
                f"device {str(place)!r} is not available: this torch sees no CUDA GPU; use 'cpu'"
            )
        if place.index is None:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        count = torch.cuda.device_count()
        if place.index >= count:
            raise InputError(f"device {str(place)!r} is not there: this machine has {counted(count, 'GPU')}")
    return place
