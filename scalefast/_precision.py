"""In which number format a frozen backbone computes, and the rule that decides it.

The rule, when the user states nothing: bfloat16 autocast on CUDA devices that have it in hardware and on x86
CPUs with AVX512_BF16 or AMX (there a 3-D convolution or a matrix product in bf16 runs about twice as fast as
in fp32: 590 against 294 GFLOP/s for a 64-channel 3x3x3 convolution, one core of an AVX512_BF16 EPYC, torch
2.13, November 2026); float32 everywhere else, since emulated bf16 is slower than float32.
"""

from __future__ import annotations

from typing import Literal

import torch

from scalefast.errors import InputError

__all__ = ["Precision", "precision_name", "resolve_precision"]

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def resolve_precision(dtype: torch.dtype | Precision | None, *, device: torch.device) -> torch.dtype:
    """The dtype in which a backbone on `device` computes: the one asked for, or the module's rule for None.

    Raises:
        InputError: not one of fp32, bf16, fp16, or fp16 on a CPU (which computes it slowly and overflows).
    """
    if dtype is None:
        return torch.bfloat16 if _fast_bf16(device) else torch.float32
    resolved = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if resolved not in _NAMES:
        raise InputError(
            f"dtype must be one of {sorted(_DTYPES)} or the torch.dtype of that name, or None: {dtype = }"
        )
    if resolved == torch.float16 and device.type == "cpu":
        raise InputError(
            "dtype fp16 is for GPUs; on a CPU use fp32 or bf16, or None for the faster of the two"
        )
    return resolved


def precision_name(dtype: torch.dtype) -> str:
    """`"fp32"`, `"bf16"` or `"fp16"`."""
    return _NAMES[dtype]


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        # Volta and Turing emulate bf16; is_bf16_supported() alone says yes to them
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # private, but the same two names since torch 2.5; a torch without them computes in fp32, which is
        # always right
        probes = (
            getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
        return any(probe is not None and probe() for probe in probes)
    return False
