"""The residual blocks of 3-D convolutional networks: R3D's two kinds, and those of the Slow pathway.

Legend: `N` clips, `C` channels, `T` frames, `H` x `W` positions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

__all__ = ["GROUPS", "BasicBlock", "Bottleneck", "Norm", "TimeConv3d", "normalisation"]

Norm = Literal["batch", "group"]

GROUPS = 8  # of group normalisation; channel counts are multiples of it


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """Batch normalisation, or group normalisation over `GROUPS` groups, of [N, C, T, H, W]."""
    return nn.BatchNorm3d(channels) if kind == "batch" else nn.GroupNorm(GROUPS, channels)


class TimeConv3d(nn.Conv3d):
    """A convolution that spans several frames, with gradients that can be relied on.

    On CPUs, oneDNN's gradient of a weight 3 frames wide is wrong in bf16 where the input has exactly 2 frames:
    other numbers every time, infinite or NaN among them (torch 2.13, AVX512_BF16, 2026-11-21; with 1, 3, 4 and 8
    frames it is right). The last stage of R3D-18 sees 2 of 16 frames. There the convolution is computed in fp32.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and x.shape[2] == 2 and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions, each normalised, added to the input (projected where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = TimeConv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = normalisation(norm, outputs)
        self.conv2 = TimeConv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = normalisation(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), normalisation(norm, outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu()


class Bottleneck(nn.Module):
    """t x 1 x 1, 1 x 3 x 3 and 1 x 1 x 1 convolutions, added to the input (projected in a stage's first block).

    Args:
        inputs, inner, outputs: channels before, inside and after the block.
        temporal: t, width over time of the first convolution.
        stride: in space, of the second convolution; time is never strided.
        project: whether a 1 x 1 x 1 convolution brings the input to the output's shape.
        norm: normalisation after every convolution.
    """

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        *,
        temporal: int,
        stride: int,
        project: bool,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        over_time = (temporal // 2, 0, 0)
        self.conv1 = TimeConv3d(inputs, inner, (temporal, 1, 1), padding=over_time, bias=False)
        self.norm1 = normalisation(norm, inner)
        self.conv2 = nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.norm2 = normalisation(norm, inner)
        self.conv3 = nn.Conv3d(inner, outputs, 1, bias=False)
        self.norm3 = normalisation(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False), normalisation(norm, outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return (self.norm3(self.conv3(y)) + self.shortcut(x)).relu()
