"""R3D, a residual network of 3-D convolutions, in its two published forms.

Depths 10 and 18: blocks of two 3 x 3 x 3 convolutions (Tran et al., CVPR 2018, arXiv 1711.11248). Depths 50, 101 and
152: CVRL's encoders (Qian et al., CVPR 2021, arXiv 2008.03800), bottlenecks as in the Slow pathway of SlowFast with a
stem that spans 5 frames and takes every second one.

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
from scalefast.backbones.residual import GROUPS, BasicBlock, Bottleneck, Norm, normalisation
from scalefast.backbones.spec import BackboneSpec, checked_colour
from scalefast.errors import InputError

__all__ = ["R3D", "R3DConfig"]

Depth = Literal["tiny", "10", "18", "50", "101", "152"]
Stem = Literal["conv", "motion-energy"]
Pooling = Literal["mean", "pyramid"]

_TEMPORAL = (1, 1, 3, 3)  # frames that the first convolution of a bottleneck spans, by stage


@dataclass(frozen=True, kw_only=True)
class _Layout:
    blocks: tuple[int, ...]
    """Residual blocks of each stage; stages after the first halve H and W, and T where blocks are basic."""
    width: int
    """Channels of the first stage; they double from stage to stage."""
    first_stride: int = 1
    """Of the first stage."""
    bottleneck: bool = False
    """Bottlenecks, whose outputs have four times the stage's channels; else basic blocks."""


_LAYOUTS: dict[str, _Layout] = {
    "tiny": _Layout(blocks=(1, 1), width=64, first_stride=2),
    "10": _Layout(blocks=(1, 1, 1, 1), width=64),
    "18": _Layout(blocks=(2, 2, 2, 2), width=64),
    "50": _Layout(blocks=(3, 4, 6, 3), width=64, bottleneck=True),
    "101": _Layout(blocks=(3, 4, 23, 3), width=64, bottleneck=True),
    "152": _Layout(blocks=(3, 8, 36, 3), width=64, bottleneck=True),
}


@dataclass(frozen=True, kw_only=True)
class R3DConfig:
    """Architecture of an `R3D` and the clips that it takes."""

    depth: Depth = "18"
    """`"18"` as published (four stages of 2 basic blocks), `"10"` with one block a stage, `"tiny"` with two
    stages of one; `"50"`, `"101"`, `"152"`: CVRL's, with bottlenecks."""
    width: float = 1.0
    """Factor on the channel counts of the stages, which are rounded to multiples of 8."""
    stem: Stem = "conv"
    """`"conv"`: a convolution as published, 3 x 7 x 7 at full rate, for bottlenecks 5 x 7 x 7 at half the rate and
    pooled in space; `"motion-energy"`: computed filters that see motion."""
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
        """Channels of each stage; inside its bottlenecks, where it has them."""
        layout = _LAYOUTS[self.depth]
        first = layout.width * self.width
        return tuple(max(GROUPS, GROUPS * round(first * 2**i / GROUPS)) for i in range(len(layout.blocks)))


class R3D(nn.Module):
    """Normalised clips float [N, 3, T, H, W] -> features float32 [N, D].

    Args:
        config: architecture; None is the published R3D-18.
        source: where the weights come from, recorded beside them; None says that they are the initial ones.
        initialise: False leaves the weights to the caller, who loads others or builds on the meta device.
    """

    def __init__(
        self,
        config: R3DConfig | None = None,
        *,
        source: Mapping[str, Any] | None = None,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        self.config = config = config or R3DConfig()
        self.source = dict(source or {"kind": "random initialisation", "seed": config.seed})
        layout, widths = _LAYOUTS[config.depth], config.widths
        # torch draws weights on construction, which are replaced below
        with torch.random.fork_rng(devices=[]):
            levels = self._build(layout, widths)
        self.feature_dim = sum(levels) if config.pooling == "pyramid" else levels[-1]
        if initialise:
            self.reset_parameters()

    def _build(self, layout: _Layout, widths: tuple[int, ...]) -> list[int]:
        """Make stem and stages; returns the channels of each."""
        self.stem, inputs = _stem(self.config)
        self.stages = nn.ModuleList()
        levels = [inputs]
        for stage, (count, width) in enumerate(zip(layout.blocks, widths, strict=True)):
            blocks = []
            for index in range(count):
                stride = 1 if index else (layout.first_stride if stage == 0 else 2)
                block, outputs = _block(
                    self.config, inputs, width, stage=stage, stride=stride, first=index == 0
                )
                blocks.append(block)
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
            levels.append(inputs)
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


def _block(
    config: R3DConfig, inputs: int, width: int, *, stage: int, stride: int, first: bool
) -> tuple[nn.Module, int]:
    """A block of a stage and its channels; `first` of its stage."""
    if not _LAYOUTS[config.depth].bottleneck:
        return BasicBlock(inputs, width, stride=stride, norm=config.norm), width
    temporal, outputs = _TEMPORAL[stage], 4 * width
    block = Bottleneck(
        inputs, width, outputs, temporal=temporal, stride=stride, project=first, norm=config.norm
    )
    return block, outputs


def _stem(config: R3DConfig) -> tuple[nn.Module, int]:
    if config.stem == "motion-energy":
        return MotionEnergyStem(), MotionEnergyStem.out_channels
    outputs = config.widths[0]
    half = _LAYOUTS[config.depth].bottleneck
    span, rate = (5, 2) if half else (3, 1)
    conv = nn.Conv3d(3, outputs, (span, 7, 7), (rate, 2, 2), (span // 2, 3, 3), bias=False)
    pool = [nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))] if half else []
    return nn.Sequential(conv, normalisation(config.norm, outputs), nn.ReLU(), *pool), outputs
