"""Which implementation serves an op: decided in one place, by the device, the dtype and `SCALEFAST_BACKEND`.

    auto (default)   triton on CUDA devices where Triton imports, else the reference
    reference        plain PyTorch everywhere
    triton           Triton or an error; on CPU tensors only in Triton's interpreter (TRITON_INTERPRET=1), for tests

fp64 is always the reference's: the kernels accumulate in fp32.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .constant import constant_result

__all__ = ["OPS", "Choice", "checks_device_data", "choose", "serves_triton"]

OPS = ("embed_sets", "gather_masked", "set_attention", "sparse_infonce", "sample_views")
_WISHES = ("auto", "reference", "triton")
_SLOWEST = (8, 0)
"""Lowest compute capability that the kernels are compiled for."""


class Choice(NamedTuple):
    """An implementation, and why."""

    implementation: Literal["reference", "triton"]
    reason: str


def choose(device: torch.device) -> Choice:
    """Who serves the ops on a device.

    Raises:
        ValueError: `SCALEFAST_BACKEND` names something that is not there.
    """
    wish = os.environ.get("SCALEFAST_BACKEND", "auto")
    if wish not in _WISHES:
        raise ValueError(f"SCALEFAST_BACKEND must be one of {', '.join(_WISHES)}; got {wish!r}")
    if wish == "reference":
        return Choice("reference", "SCALEFAST_BACKEND=reference")
    lacking = _lacks_triton(device)
    if lacking is None:
        return Choice("triton", "SCALEFAST_BACKEND=triton" if wish == "triton" else _why_triton(device))
    if wish == "triton":
        raise ValueError(f"SCALEFAST_BACKEND='triton' cannot serve {device.type} tensors here: {lacking}")
    return Choice("reference", f"plain PyTorch: {lacking}")


def serves_triton(op: str, tensor: Tensor) -> bool:
    """Whether Triton serves this call of `op`, by its main tensor."""
    if op not in OPS:
        raise ValueError(f"op must be one of {OPS}; got {op!r}")
    return choose(tensor.device).implementation == "triton" and tensor.dtype != torch.float64


def checks_device_data(tensor: Tensor) -> bool:
    """Whether to look at values in `tensor` before computing: on CPU, and elsewhere with SCALEFAST_CHECKS=1.

    Never while a graph is traced or captured, where reading a value would break it.
    """
    if torch.compiler.is_compiling():
        return False
    if tensor.device.type == "cpu":
        return True
    return os.environ.get("SCALEFAST_CHECKS") == "1" and not torch.cuda.is_current_stream_capturing()


def _why_triton(device: torch.device) -> str:
    return "Triton's kernels" if device.type == "cuda" else "Triton's interpreter (TRITON_INTERPRET=1)"


def _lacks_triton(device: torch.device) -> str | None:
    """Why Triton cannot serve a device, or None if it can."""
    if not _triton_installed():
        return "Triton is not installed (pip install 'scalefast[gpu]')"
    if device.type == "cuda":
        return _capability_lacks(device.index if device.index is not None else -1)
    if device.type != "cpu":
        return f"the kernels serve CUDA devices; this is {device.type!r}"
    if os.environ.get("TRITON_INTERPRET") != "1":
        return "on a CPU Triton runs in its interpreter alone, for tests (TRITON_INTERPRET=1)"
    if os.environ.get("SCALEFAST_BACKEND") != "triton":
        return "the interpreter is used only if SCALEFAST_BACKEND=triton asks for it"
    return None


_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None


def _triton_installed() -> bool:
    return _TRITON_INSTALLED


@constant_result  # a GPU stays what it is: nothing for torch.compile to trace, or to warn of
def _capability_lacks(index: int) -> str | None:
    return _found_lacking(index)


@functools.cache
def _found_lacking(index: int) -> str | None:
    found = torch.cuda.get_device_capability(None if index < 0 else index)
    if torch.version.hip is None and found < _SLOWEST:
        return f"the kernels need compute capability {_SLOWEST[0]}.{_SLOWEST[1]}; this GPU has {found[0]}.{found[1]}"
    return None
