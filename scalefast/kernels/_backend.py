"""Which implementation serves which op: a value that a caller can read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch

from scalefast.kernels.ops.dispatch import OPS, choose
from scalefast.kernels.ops.native import NATIVE_OPS, lacking

__all__ = ["OpBackend", "backend"]

Implementation = Literal["reference", "native", "triton"]

_FP64 = "fp64 is the reference's"
_LIMITS = {
    "embed_sets": _FP64,
    "gather_masked": f"{_FP64}; without a capacity the reference serves, and waits for the count",
    "set_attention": (
        f"{_FP64}; sets above 128 tokens (64 in fp32) and head dimensions above 128 go to torch's fused attention, "
        "with dropout to the reference"
    ),
    "sparse_infonce": (
        "fp64 and empty inputs are the reference's; D above 256, and fp32 unless torch's setting or autocast allow "
        "TF32, go strip by strip through torch's matrix product"
    ),
    "sample_views": f"{_FP64}, and so are videos of more than 512 clips and a bank that wants gradients",
}
"""Calls that Triton's kernels leave to others."""

_NATIVE_LIMITS = {
    "embed_sets": "fp32 and bf16 alone",
    "set_attention": (
        "fp32 and bf16 alone; packed sets, sets above 24 tokens and head dimensions above 128 go to torch or the "
        "reference"
    ),
    "sparse_infonce": "fp32 and bf16 alone, and calls without groups",
}
"""Calls that the C library serves; the reference serves the others."""


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

    On a CPU `native` stands for the optional C library (`SCALEFAST_NATIVE` = `auto`, `0` or `1`).

    Raises:
        ValueError: `SCALEFAST_BACKEND` names an implementation that is not there, or `SCALEFAST_NATIVE` is 1 and the
            library cannot be used.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    choice = choose(device)
    limits = _LIMITS if choice.implementation == "triton" else dict.fromkeys(OPS, "")
    served = {op: OpBackend(op, str(device), choice.implementation, choice.reason, limits[op]) for op in OPS}
    return served | _native(served) if device.type == "cpu" else served


def _native(served: dict[str, OpBackend]) -> dict[str, OpBackend]:
    """The ops that the C library serves on a CPU, or why it does not."""
    reason = lacking()
    if reason is None:
        return {
            op: OpBackend(op, "cpu", "native", "the C library", limits)
            for op, limits in _NATIVE_LIMITS.items()
        }
    return {
        op: dataclasses.replace(served[op], reason=f"{served[op].reason}; no native CPU kernels: {reason}")
        for op in NATIVE_OPS
    }
