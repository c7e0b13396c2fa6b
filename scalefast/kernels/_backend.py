"""Which implementation serves which op: a value that a caller can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from scalefast.kernels.ops.dispatch import OPS, choose

__all__ = ["OpBackend", "backend"]

Implementation = Literal["reference", "triton"]


@dataclass(frozen=True)
class OpBackend:
    """Who serves one op on one device."""

    op: str
    device: str
    implementation: Implementation
    reason: str


def backend(device: str | torch.device | None = None) -> dict[str, OpBackend]:
    """The implementation of every op on a device (default: CUDA if there is one, else CPU), and why.

    `SCALEFAST_BACKEND` = `auto` (default), `reference` or `triton` chooses; what cannot be served is refused rather
    than replaced. Tensors in fp64 are the reference's wherever they are.

    Raises:
        ValueError: `SCALEFAST_BACKEND` names an implementation that is not there.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    choice = choose(device)
    return {op: OpBackend(op, str(device), choice.implementation, choice.reason) for op in OPS}
