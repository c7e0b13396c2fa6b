"""The first steps of a run in mixed precision, which are computed in fp32.

Adam divides the mean of a gradient by its root mean square. In the first step that leaves the sign alone: every weight
moves by the learning rate, however small its gradient is, and where it is nearly 0 rounding to bf16 decides the
direction. An error of 1.1% of the gradient was one of 12% of the first update (.4% of the signs), of 3% of the second
and 2% of later ones, and training amplified it: docs/performance.md, "Mixed precision" (the demo's videos, 2026-11-21).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scalefast._block import Block
from scalefast._heads import GeluMLP

__all__ = ["FP32_STEPS", "fp32_forward", "starts_in_fp32"]

FP32_STEPS = 8
"""Steps of a bf16 run that are computed in fp32."""

_ROWS = 1024
"""Rows of a head that are computed again at a time."""


def starts_in_fp32(step: int, *, precision: str) -> bool:
    """Whether the step after `step` completed ones is computed in fp32 though the run's precision is another."""
    return precision == "bf16" and step < FP32_STEPS


@contextmanager
def fp32_forward(task: nn.Module) -> Iterator[None]:
    """A forward pass in fp32 that keeps about as little memory for the backward pass as one in bf16.

    Blocks and heads keep their input alone and compute the rest again (dropout is a function of seed, step and row).
    Otherwise the first steps would decide the peak memory of the whole run.
    """
    parts: list[Any] = [part for part in task.modules() if isinstance(part, (Block, GeluMLP))]
    for part in parts:
        again = partial(checkpoint, part.forward, use_reentrant=False, preserve_rng_state=False)
        part.forward = partial(_by_rows, again) if isinstance(part, GeluMLP) else again
    try:
        yield
    finally:
        for part in parts:
            del part.forward  # the class's own is there again


def _by_rows(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """[..., D] -> [..., P]."""
    rows = torch.cat([forward(piece) for piece in x.flatten(0, -2).split(_ROWS)])
    return rows.unflatten(0, x.shape[:-1])
