"""Linear layers for inference on a CPU: the weight laid out once as oneDNN reads it, what follows done in the product.

Without gradients only the last form of a product need reach memory: GELU, ReLU or a residual is applied to a tile of it
while that is in registers. PyTorch has such products for its own compiler, as `torch.ops.mkldnn._linear_pointwise`.
"""

from __future__ import annotations

import platform
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["PackedLinear", "serves_packed"]

_ARGUMENTS = {"none": ("none", ""), "relu": ("relu", ""), "gelu": ("gelu", "none")}  # gelu: by erf, not tanh


def serves_packed(dtype: torch.dtype, *, device: torch.device) -> bool:
    """Whether this machine and this PyTorch have such products: x86 with AVX-512, for bf16 with its products too."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and platform.machine() == "x86_64"
    if device.type != "cpu" or not wide or not torch.backends.mkldnn.is_available():
        return False
    ops = torch.ops.mkldnn
    if not all(hasattr(ops, name) for name in ("_linear_pointwise", "_reorder_linear_weight")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported())


class PackedLinear:
    """`torch.nn.Linear` as it stands now, for rows in `dtype`; without gradients.

    Args:
        layer: its weight is rounded to `dtype` and copied.
        rows: about how many come at a time; the layout is made for so many, and serves any number.
    """

    def __init__(self, layer: nn.Linear, *, dtype: torch.dtype, rows: int) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype), rows)
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def __call__(self, x: Tensor, *, activation: Literal["none", "relu", "gelu"] = "none") -> Tensor:
        """`activation(linear(x))`: [..., D] -> [..., E], in the dtype of x."""
        kind, algorithm = _ARGUMENTS[activation]
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, kind, [], algorithm)
        return out

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """`linear(x) + residual`, for a residual [..., E]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        return out
