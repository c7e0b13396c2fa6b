"""Which implementation serves which op: a value that a caller can read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["OpBackend", "backend"]

Implementation = Literal["reference", "native", "triton"]
OPS = ("embed_sets", "gather_masked", "set_attention", "sparse_infonce", "sample_views")


@dataclass(frozen=True)
class OpBackend:
    """Who serves one op on one device."""

    op: str
    device: str
    implementation: Implementation
    reason: str


def backend(device: str | torch.device | None = None) -> dict[str, OpBackend]:
    """The implementation of every op on a device (default: CUDA if there is one, else CPU), and why.

    `SCALEFAST_BACKEND` = `auto` (default) or `reference` chooses; anything that this version cannot serve is
    refused rather than replaced.

    Raises:
        ValueError: `SCALEFAST_BACKEND` names an implementation that is not there.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    wish = os.environ.get("SCALEFAST_BACKEND", "auto")
    if wish not in ("auto", "reference"):
        raise ValueError(
            f"SCALEFAST_BACKEND={wish!r} is not available: this version has the reference implementation "
            "alone; use 'auto' or 'reference'"
        )
    reason = (
        "SCALEFAST_BACKEND=reference"
        if wish == "reference"
        else "plain PyTorch, the only implementation in this version"
    )
    return {op: OpBackend(op, str(device), "reference", reason) for op in OPS}
