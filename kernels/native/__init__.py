"""The optional C library behind some ops on a CPU: whether it is there, and its functions.

It is built by CMake where setup.py finds a compiler, and loaded with ctypes. `SCALEFAST_NATIVE` decides about it:

    auto (default)   used if it is there
    0                left alone
    1                used, or an error that says what it lacks

fp32 and bf16 on CPU tensors; any `SCALEFAST_BACKEND` but auto turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import torch
from torch import Tensor

from ..dispatch.constant import constant_result

__all__ = ["LIBRARY", "NATIVE_OPS", "lacking", "library", "serves_native"]

LIBRARY = Path(__file__).parents[2] / "libscalefast_native.so"
"""Where the build puts it: beside `scalefast/kernels/__init__.py`."""

NATIVE_OPS = ("embed_sets", "set_attention", "sparse_infonce")
"""Ops of which it serves some calls; it also drops activations, and for `scalefast.evaluation` ranks neighbours and
pools clips."""

_VERSION = 5
_DTYPES = (torch.float32, torch.bfloat16)


def lacking() -> str | None:
    """Why the library is not used here, in words; None if it is.

    Raises:
        ValueError: SCALEFAST_NATIVE is not auto, 0 or 1; or it is 1 and the library cannot be used.
    """
    wish, backend = os.environ.get("SCALEFAST_NATIVE", "auto"), os.environ.get("SCALEFAST_BACKEND", "auto")
    if wish not in ("auto", "0", "1"):
        raise ValueError(f"SCALEFAST_NATIVE must be auto, 0 or 1; got {wish!r}")
    if wish == "0" or backend != "auto":
        return "SCALEFAST_NATIVE=0" if wish == "0" else f"SCALEFAST_BACKEND={backend}"
    reason = _absent()
    if reason is not None and wish == "1":
        raise ValueError(f"SCALEFAST_NATIVE=1 asks for the native CPU kernels: {reason}")
    return reason


def library() -> ctypes.CDLL:
    """The library; only where nothing is lacking."""
    loaded = _load(LIBRARY)[0]
    assert loaded is not None
    return loaded


def serves_native(tensor: Tensor) -> bool:
    """Whether the library may serve an op whose main tensor this is.

    Raises:
        ValueError: as `lacking`.
    """
    return tensor.device.type == "cpu" and tensor.dtype in _DTYPES and lacking() is None


@constant_result  # files are nothing for torch.compile to trace
def _absent() -> str | None:
    return _load(LIBRARY)[1]


@functools.cache
def _load(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    if not path.is_file():
        return None, (
            "they were not built (needs cmake and a C compiler when scalefast is installed; `pip install -v .` says "
            "what it lacks)"
        )
    try:
        loaded = ctypes.CDLL(str(path))
        version = loaded.scalefast_native_version()
    except (OSError, AttributeError) as error:
        return None, f"{path} does not load ({error})"
    if version != _VERSION:
        return None, f"{path} was built from other sources (version {version}, not {_VERSION}): install again"
    loaded.scalefast_topk.restype = ctypes.c_int64
    return loaded, None
