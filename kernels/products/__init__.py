"""The linear product behind every layer and loss: the faster of PyTorch's two fp32 ones on CPU.

PyTorch sends fp32 products on CPU to MKL, which on AMD processors keeps to AVX2 even where AVX-512 is there. Its 1 x 1
convolution is the same arithmetic and goes to oneDNN, which uses AVX-512 on both makes: on two Zen 5 cores 8192 x 2048
times 2048 x 2048 runs at 404 against 196 GFLOP/s forward, and 411 and 315 against 196 and 197 for its two gradients
(torch 2.13.0, 2026-11-21). Everywhere else, and in every other dtype, this is `torch.nn.functional.linear`.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PREFERS_ONEDNN", "linear", "linear_gradients"]

SMALLEST = 1 << 26
"""Multiplications from which the product is worth the call: below, preparing the convolution costs what it saves."""


def _prefers_onednn() -> bool:
    """A rule about the processor, not a measurement: the product taken decides the last bits, and a resumed run must
    take the same."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.backends.mkldnn.is_available() and wide and _vendor() == "AuthenticAMD"


def _vendor() -> str:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


PREFERS_ONEDNN = _prefers_onednn()
"""Whether this machine's large fp32 products are faster in oneDNN: AMD with AVX-512."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: [..., D] by [E, D] to [..., E]."""
    if not _convolves(x, weight):
        return F.linear(x, weight, bias)
    # No reshape behind the convolution: its backward pass would clear and copy a whole gradient.
    rows = x.flatten(0, -2) if x.ndim > 2 else x
    out = F.conv2d(_image(rows), weight[:, :, None, None], bias)
    rows = out.permute(0, 2, 3, 1).squeeze(2).squeeze(0)
    return rows.unflatten(0, x.shape[:-1]) if x.ndim > 2 else rows


def linear_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, *, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of `linear(x, weight)` for x [M, D] and weight [E, D] from grad [M, E], where autograd cannot be asked.

    Args:
        wanted: whether that of x, and that of weight; None stands for one that is not.
    """
    if not _convolves(x, weight):
        return (grad @ weight if wanted[0] else None), (grad.T @ x if wanted[1] else None)
    one, zero = [1, 1], [0, 0]
    image, kernel, _ = torch.ops.aten.convolution_backward(
        _image(grad),
        _image(x),
        weight[:, :, None, None],
        None,
        one,
        zero,
        one,
        False,
        zero,
        1,
        (*wanted, False),
    )
    grad_x = image.permute(0, 2, 3, 1).squeeze(2).squeeze(0) if wanted[0] else None
    return grad_x, kernel.squeeze(3).squeeze(2) if wanted[1] else None


def _image(rows: Tensor) -> Tensor:
    """Rows as the pixels of one image with D channels, channels last: no value moves."""
    image = rows[None, :, None, :].permute(0, 3, 1, 2)
    return image.contiguous(memory_format=torch.channels_last)


def _convolves(x: Tensor, weight: Tensor) -> bool:
    if not PREFERS_ONEDNN or torch.compiler.is_compiling():
        return False
    plain_fp32 = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    return plain_fp32 and x.numel() * len(weight) >= SMALLEST and not torch.is_autocast_enabled("cpu")
