"""R3D, a residual network of 3-D convolutions (Tran et al., CVPR 2018, arXiv 1711.11248).

It needs no download: weights come from a seed, the same on every machine. Untrained, its features are fixed
functions of the clip (what they tell is in docs/backbones.md); trained, it is an encoder in the same folder
format.

Legend: `N` clips, `T` frames, `H` x `W` pixels, `D` width of the feature.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from scalefast.backbones.motion_energy import MotionEnergyStem
from scalefast.backbones.spec import BackboneSpec, checked_colour
from scalefast.errors import InputError

__all__ = ["R3D", "R3DConfig"]

Depth = Literal["tiny", "10", "18"]
Stem = Literal["conv", "motion-energy"]
Norm = Literal["batch", "group"]
Pooling = Literal["mean", "pyramid"]

_GROUPS = 8  # of group normalisation; channel counts are multiples of it


@dataclass(frozen=True, kw_only=True)
class _Layout:
    blocks: tuple[int, ...]
    """Residual blocks of each stage; stages after the first halve T, H and W."""
    width: int
    """Channels of the first stage; they double from stage to stage."""
    first_stride: int
    """Of the first stage."""


_LAYOUTS: dict[str, _Layout] = {
    "tiny": _Layout(blocks=(1, 1), width=64, first_stride=2),
    "10": _Layout(blocks=(1, 1, 1, 1), width=64, first_stride=1),
    "18": _Layout(blocks=(2, 2, 2, 2), width=64, first_stride=1),
}


@dataclass(frozen=True, kw_only=True)
class R3DConfig:
    """Architecture of an `R3D` and the clips that it takes."""

    depth: Depth = "18"
    """`"18"` as published (four stages of 2 basic blocks), `"10"` with one block a stage, `"tiny"` with two
    stages of one."""
    width: float = 1.0
    """Factor on the channel counts of the stages, which are rounded to multiples of 8."""
    stem: Stem = "conv"
    """`"conv"`: 3 x 7 x 7 convolution, as published; `"motion-energy"`: computed filters that see motion."""
    norm: Norm = "batch"
    """Batch normalisation, as published, or group normalisation, which needs no statistics from training."""
    pooling: Pooling = "mean"
    """`"mean"` over time and space of the last stage, as published, or `"pyramid"`: of the stem and every
    stage, the maximum over space (an object counts the same wherever and however small it is), its mean over
    time, square root, minus the mean over the stage's channels."""
    num_frames: int = 16
    """T, frames in a clip."""
    stride: int = 4
    """Recommended distance of two frames at 30 fps."""
    size: int = 112
    """H = W in pixels."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Subtracted from red, green, blue in [0, 1]."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """Divides red, green, blue."""
    seed: int = 0
    """Of the initial weights."""

    def __post_init__(self) -> None:
        for name, choices in (("depth", Depth), ("stem", Stem), ("norm", Norm), ("pooling", Pooling)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(
                    f"R3D: {name} must be one of {get_args(choices)}, got {getattr(self, name)!r}"
                )
        for name, least in (("num_frames", 1), ("stride", 1), ("size", 16), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"R3D: {name} must be an integer of at least {least}, got {value!r}")
        number = isinstance(self.width, (int, float)) and not isinstance(self.width, bool)
        if not number or not 0 < self.width < math.inf:
            raise InputError(f"R3D: width must be a positive number, got {self.width!r}")
        # from JSON they come as lists
        object.__setattr__(self, "mean", checked_colour(self.mean, owner="R3D", name="mean"))
        object.__setattr__(self, "std", checked_colour(self.std, owner="R3D", name="std"))
        if self.stem == "motion-energy":
            stem = MotionEnergyStem
            if self.num_frames < stem.min_frames:
                raise InputError(
                    f"R3D: the motion-energy stem needs at least {stem.min_frames} frames, "
                    f"got {self.num_frames = }"
                )
            if self.size < stem.min_size or self.size % stem.size_multiple:
                raise InputError(
                    f"R3D: the motion-energy stem needs a size of at least {stem.min_size} "
                    f"that is divisible by {stem.size_multiple}, got {self.size = }"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        layout = _LAYOUTS[self.depth]
        first = layout.width * self.width
        return tuple(max(_GROUPS, _GROUPS * round(first * 2**i / _GROUPS)) for i in range(len(layout.blocks)))


class BasicBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions, each normalised, added to the input (projected where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = _norm(norm, outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = _norm(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), _norm(norm, outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu()


class R3D(nn.Module):
    """Normalised clips float [N, 3, T, H, W] -> features float32 [N, D].

    Args:
        config: architecture; None is the published R3D-18.
        source: where the weights come from, recorded beside them; None says that they are the initial ones.
    """

    def __init__(self, config: R3DConfig | None = None, *, source: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config = config or R3DConfig()
        self.source = dict(source or {"kind": "random initialisation", "seed": config.seed})
        layout, widths = _LAYOUTS[config.depth], config.widths
        # torch draws weights on construction, which are replaced below
        with torch.random.fork_rng(devices=[]):
            levels = self._build(layout, widths)
        self.feature_dim = sum(levels) if config.pooling == "pyramid" else levels[-1]
        self.reset_parameters()

    def _build(self, layout: _Layout, widths: tuple[int, ...]) -> list[int]:
        """Make stem and stages; returns the channels of each."""
        norm = self.config.norm
        self.stem, inputs = _stem(self.config)
        self.stages = nn.ModuleList()
        levels = [inputs]
        for stage, (count, outputs) in enumerate(zip(layout.blocks, widths, strict=True)):
            stride = layout.first_stride if stage == 0 else 2
            blocks = [BasicBlock(inputs, outputs, stride=stride, norm=norm)]
            blocks += [BasicBlock(outputs, outputs, stride=1, norm=norm) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            levels.append(inputs := outputs)
        return levels

    def reset_parameters(self) -> None:
        """Initial weights from the configuration's seed alone, whatever the global generator does.

        He-uniform, not normal: without a logarithm the numbers, and so the hash, are equal on every machine.
        """
        generator = torch.Generator().manual_seed(self.config.seed)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                bound = math.sqrt(6.0 / module.weight[0].numel())
                uniform = torch.rand(module.weight.shape, generator=generator)
                with torch.no_grad():
                    module.weight.copy_((2 * uniform - 1) * bound)
            elif isinstance(module, (nn.BatchNorm3d, nn.GroupNorm)):
                module.reset_parameters()
        if isinstance(self.stem, MotionEnergyStem):
            self.stem.reset_parameters()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        levels = [self.stem(pixels)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        if self.config.pooling == "mean":
            return levels[-1].float().mean((2, 3, 4))
        return torch.cat([_peak(level) for level in levels], dim=1)

    def spec(self, name: str) -> BackboneSpec:
        """What `FrozenBackbone` needs to know."""
        config = self.config
        pooling = {
            "mean": "mean over time and space of the last stage",
            "pyramid": "centred root of the mean over time of the maximum over space, stem and stages",
        }
        variant = "" if config.stem == "conv" else f" with {config.stem} stem"
        return BackboneSpec(
            name=name,
            architecture=f"R3D-{config.depth}{variant}",
            feature_dim=self.feature_dim,
            num_frames=config.num_frames,
            stride=config.stride,
            size=config.size,
            mean=config.mean,
            std=config.std,
            pooling=pooling[config.pooling],
            source=self.source,
        )

    def to_config(self) -> dict[str, Any]:
        """The configuration as a JSON-able dict, the inverse of `R3DConfig(**...)`."""
        return dataclasses.asdict(self.config)


def _peak(level: torch.Tensor) -> torch.Tensor:
    """Non-negative [N, C, F, h, w] -> [N, C]; the constant keeps the root's gradient finite at zero.

    Minus the mean over the channels, since what all have in common would make all features nearly parallel:
    untrained, the mean cosine of two clips falls from .95 to .60 and k-NN gains a point.
    """
    peak = (level.amax((3, 4)).float().mean(2) + 1e-4).sqrt()
    return peak - peak.mean(1, keepdim=True)


def _stem(config: R3DConfig) -> tuple[nn.Module, int]:
    if config.stem == "motion-energy":
        return MotionEnergyStem(), MotionEnergyStem.out_channels
    outputs = config.widths[0]
    conv = nn.Conv3d(3, outputs, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
    return nn.Sequential(conv, _norm(config.norm, outputs), nn.ReLU()), outputs


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm3d(channels) if kind == "batch" else nn.GroupNorm(_GROUPS, channels)
