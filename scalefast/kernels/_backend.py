"""Which implementation serves which op: a value that a caller can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from scalefast.kernels.ops.dispatch import OPS, choose

__all__ = ["OpBackend", "backend"]

Implementation = Literal["reference", "triton"]

_FP64 = "fp64 is the reference's"
_LIMITS = {
    "embed_sets": _FP64,
    "gather_masked": f"{_FP64}; without a capacity the reference serves, and waits for the count",
    "set_attention": (
        f"{_FP64}; sets above 128 tokens (64 in fp32) and head dimensions above 128 go to torch's fused attention, "
        "with dropout to the reference"
    ),
    "sparse_infonce": (
        "fp64 and empty inputs are the reference's; D above 256, and fp32 unless TF32 is allowed, go strip by strip "
        "through torch's matrix product"
    ),
    "sample_views": f"{_FP64}, and so are videos of more than 512 clips and a bank that wants gradients",
}
"""Calls that Triton's kernels leave to others."""


@dataclass(frozen=True)
class OpBackend:
    """Who serves one op on one device."""

    op: str
    device: str
    implementation: Implementation
    reason: str
    limits: str
    """Which calls of the op it leaves to something else, and to what; empty: none."""


def backend(device: str | torch.device | None = None) -> dict[str, OpBackend]:
    """The implementation of every op on a device (default: CUDA if there is one, else CPU), and why.

    `SCALEFAST_BACKEND` = `auto` (default), `reference` or `triton` chooses; an implementation that is not there is
    refused rather than replaced. `limits` of an op says which of its calls are served otherwise all the same.

    Raises:
        ValueError: `SCALEFAST_BACKEND` names an implementation that is not there.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    choice = choose(device)
    limits = _LIMITS if choice.implementation == "triton" else dict.fromkeys(OPS, "")
    return {op: OpBackend(op, str(device), choice.implementation, choice.reason, limits[op]) for op in OPS}
