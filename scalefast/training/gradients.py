"""The mean of gradients over the processes of a run, sent while the backward pass still computes others.

Why not DistributedDataParallel, which overlaps too: it orders its buckets anew after the first step of a session, by
the order in which gradients came. A sum over three or more processes depends on where in a bucket a number stands, so
that a resumed run parts from an uninterrupted one in the last bits (seen with 3 processes on Gloo, torch 2.13). With
`find_unused_parameters=True` it keeps its buckets, but walks the graph in every step and exchanges a map of the used
parameters, which lives on the host, for a task that uses them all. Here buckets follow from the parameters alone.

Why not FSDP2: it shards what does not fit. Weights, gradients and Adam's moments are 170 MB here, and the weights
would have to be gathered for every forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["GradientAverage", "average_gradients"]

BUCKET_BYTES = 8 << 20
"""Gradients sent together: the 42 MB of the paper's model in six parts."""


class _Bucket:
    """Some parameters whose gradients travel as one tensor."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing = len(parameters)
        """Parameters whose gradient this step's backward pass has not reached."""
        self._flat: Tensor | None = None
        self._work: Any = None

    def send(self) -> None:
        """Begin to add up the gradients over the processes; 0 stands for one that is missing."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self._flat = torch.cat([grad.flatten() for grad in grads])
        for parameter in self.parameters:  # the copy alone stays
            parameter.grad = None
        self._work = dist.all_reduce(self._flat, async_op=True)

    def receive(self, *, processes: int) -> None:
        """Wait for the sum (on a GPU its stream does, the host goes on) and make its mean the gradients."""
        assert self._flat is not None
        self._work.wait()
        self._flat /= processes
        parts = self._flat.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        self.missing, self._flat, self._work = len(self.parameters), None, None


class GradientAverage:
    """Replaces gradients by their mean over the processes: sums begin in the backward pass, `finish` ends them.

    All processes must run one backward pass, of the same graph, before each `finish`.

    Args:
        parameters: in about the order in which a backward pass reaches them; the same in all processes.
        processes: how many there are; with one nothing is done.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, processes: int) -> None:
        self._processes = processes
        self._buckets = _buckets(parameters) if processes > 1 else []
        self._home: dict[Tensor, _Bucket] = {
            parameter: bucket for bucket in self._buckets for parameter in bucket.parameters
        }
        self._sent = 0
        for parameter in self._home:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def _arrived(self, parameter: Tensor) -> None:
        self._home[parameter].missing -= 1
        # Bucket after bucket, whichever is full first: processes must send in the same order.
        while self._sent < len(self._buckets) and self._buckets[self._sent].missing == 0:
            self._buckets[self._sent].send()
            self._sent += 1

    def finish(self) -> None:
        """Send what was not reached, and wait for all."""
        for bucket in self._buckets[self._sent :]:
            bucket.send()
        for bucket in self._buckets:
            bucket.receive(processes=self._processes)
        self._sent = 0

    def forget(self) -> None:
        """Begin anew after a backward pass that was broken off, of which nothing was sent: a capture that failed."""
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self._sent = 0


def average_gradients(parameters: Sequence[nn.Parameter], *, processes: int) -> None:
    """The same at once, after a backward pass."""
    buckets = _buckets(parameters) if processes > 1 else []
    for bucket in buckets:
        bucket.send()
    for bucket in buckets:
        bucket.receive(processes=processes)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[_Bucket]:
    """Consecutive parameters of one dtype and device, together at most `BUCKET_BYTES` unless one alone is larger."""
    groups: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        fits = groups and size + parameter.nbytes <= BUCKET_BYTES
        if fits and (groups[-1][0].dtype, groups[-1][0].device) == (parameter.dtype, parameter.device):
            groups[-1].append(parameter)
            size += parameter.nbytes
        else:
            groups.append([parameter])
            size = parameter.nbytes
    return [_Bucket(group) for group in groups]
