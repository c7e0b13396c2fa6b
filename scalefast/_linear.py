"""A linear layer without bias that takes the faster of PyTorch's two fp32 matrix products on CPU.

PyTorch sends fp32 products on CPU to MKL, which on AMD processors keeps to AVX2 even where AVX-512 is there.
oneDNN, in the same build of PyTorch, does not: 394 against 200 GFLOP/s for 8192 x 2048 x 2048 on two Zen 5 cores
(torch 2.13.0, 2026-11-21). The loss heads are nearly nine tenths of a training step, so they ask oneDNN there;
everywhere else, and in every other dtype, this is `torch.nn.Linear`.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["HeadLinear", "prefers_onednn"]


@functools.cache
def prefers_onednn() -> bool:
    """Whether this machine's fp32 products are faster in oneDNN: AMD with AVX-512, and a PyTorch that offers the call.

    A rule about the processor, not a measurement: which product is taken decides the last bits, and a resumed run must
    take the same.
    """
    offered = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return offered and wide and _vendor() == "AuthenticAMD"


def _vendor() -> str:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def _product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b.T` by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """`x @ weight.T` and its two gradients, each one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        grad_weight = _product(grad.t(), x.t()) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight


class HeadLinear(nn.Linear):
    """`torch.nn.Linear` without bias, for [M, D] inputs; the same parameters and initialisation."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[M, in_features] -> [M, out_features]."""
        plain_fp32 = x.dtype == self.weight.dtype == torch.float32 and x.device.type == "cpu"
        if plain_fp32 and x.numel() and not torch.is_autocast_enabled("cpu") and prefers_onednn():
            return _OneDNNLinear.apply(x, self.weight)
        return super().forward(x)
