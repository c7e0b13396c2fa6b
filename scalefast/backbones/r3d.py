"""R3D: a residual network of 3-D convolutions (Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions").

It needs no download: weights come from a seed, the same on every machine. Untrained, its feature is a fixed random
projection of the clip; trained (by CVRL, say), it is a real encoder in the same folder format.

Legend: `N` clips, `T` frames, `H` x `W` pixels, `C` channels, `D` width of the feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import InputError

__all__ = ["R3D", "R3DConfig"]

Depth = Literal["tiny", "10", "18"]

# blocks of each stage; every stage after the first halves T, H and W
_BLOCKS: dict[str, tuple[int, ...]] = {"tiny": (1, 1, 1), "10": (1, 1, 1, 1), "18": (2, 2, 2, 2)}
_FIRST_WIDTH: dict[str, int] = {"tiny": 32, "10": 64, "18": 64}


@dataclass(frozen=True, kw_only=True)
class R3DConfig:
    """Architecture of an `R3D`; everything that its folder records beside the weights."""

    depth: Depth = "18"
    """`"18"` as published (2, 2, 2, 2 basic blocks), `"10"` with one block a stage, `"tiny"` with three stages."""
    width: float = 1.0
    """Factor on all channel counts."""
    num_frames: int = 16
    """T."""
    stride: int = 4
    """Recommended frame distance at 30 fps."""
    size: int = 112
    """H = W in pixels."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Subtracted from red, green, blue in [0, 1]."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """Divides red, green, blue."""
    seed: int = 0
    """Of the initial weights."""

    def __post_init__(self) -> None:
        if self.depth not in _BLOCKS:
            raise InputError(f"R3D depth must be one of {sorted(_BLOCKS)}, got {self.depth!r}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, doubling from stage to stage, in multiples of 8."""
        first = _FIRST_WIDTH[self.depth] * self.width
        return tuple(max(8, 8 * round(first * 2**stage / 8)) for stage in range(len(_BLOCKS[self.depth])))


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with batch normalisation, added to the (projected) input."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm3d(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm3d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(x)).relu_()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu_()


class R3D(nn.Module):
    """Normalised clips [N, 3, T, H, W] -> features [N, D] by global average pooling."""

    def __init__(self, config: R3DConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Sequential(
            nn.Conv3d(3, widths[0], (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(widths[0]), nn.ReLU()
        )
        stages: list[nn.Module] = []
        for stage, blocks in enumerate(_BLOCKS[config.depth]):
            for block in range(blocks):
                inputs = widths[max(stage - 1, 0)] if block == 0 else widths[stage]
                stages.append(BasicBlock(inputs, widths[stage], stride=2 if stage and block == 0 else 1))
        self.stages = nn.Sequential(*stages)
        self.feature_dim = widths[-1]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He-uniform weights from the configuration's seed, independent of the global generator.

        Uniform rather than normal: it takes no logarithm, so that the weights (and their hash) are equal everywhere.
        """
        generator = torch.Generator().manual_seed(self.config.seed)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                bound = (6.0 / module.weight[0].numel()) ** 0.5
                uniform = torch.rand(module.weight.shape, generator=generator)
                with torch.no_grad():
                    module.weight.copy_((2 * uniform - 1) * bound)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.stages(self.stem(pixels)).float().mean((2, 3, 4))

    def spec(self, name: str) -> BackboneSpec:
        """What `FrozenBackbone` needs to know."""
        config = self.config
        return BackboneSpec(
            name=name,
            architecture=f"R3D-{config.depth}",
            feature_dim=self.feature_dim,
            num_frames=config.num_frames,
            stride=config.stride,
            size=config.size,
            mean=config.mean,
            std=config.std,
            pooling="mean over time and space",
            source={"kind": "random initialisation", "seed": config.seed},
        )
