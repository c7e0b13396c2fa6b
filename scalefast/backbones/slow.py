"""Slow-R50, the Slow pathway of SlowFast networks (Feichtenhofer et al., ICCV 2019, arXiv 1812.03982).

A ResNet-50 over clips whose first stages look at each frame alone and whose last two convolve over time; time
is never strided. rhoBYOL (Feichtenhofer et al., CVPR 2021, arXiv 2104.14558) trains it without labels, and its
released files hold two of them: the one that was trained and its momentum teacher, which gives the features.

Legend: `N` clips, `T` frames, `H` x `W` pixels, `D` width of the feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefast.backbones.checkpoint import Layout, fill
from scalefast.backbones.pathway import (
    MEAN,
    STD,
    TEACHER,
    Stem,
    contrastive_leftovers,
    model_state,
    pathway_names,
    require_teacher,
    residual_stage,
    weights_without_counters,
)
from scalefast.backbones.spec import BackboneSpec

__all__ = ["SLOW_SPANS", "SlowFile", "SlowR50"]

SLOW_SPANS = (1, 1, 3, 3)  # width over time of the first convolution of every block, by stage


class SlowR50(Stem):
    """Normalised clips float [N, 3, T, H, W] -> features float32 [N, D], the mean over time and space.

    Args:
        width: channels of the stem; the four stages give 4, 8, 16 and 32 times as many, so D = 32 width.
        blocks: residual blocks of each stage.
    """

    def __init__(self, *, width: int = 64, blocks: tuple[int, int, int, int] = (3, 4, 6, 3)) -> None:
        super().__init__(width)
        self.dimensions = {"width": width, "blocks": blocks}
        """What it was built with."""
        self.feature_dim = 32 * width
        inputs = (width, 4 * width, 8 * width, 16 * width)
        self.stages = nn.ModuleList(
            residual_stage(
                inputs[stage],
                width * 2**stage,
                blocks=blocks[stage],
                temporal=SLOW_SPANS[stage],
                stride=1 if stage == 0 else 2,
            )
            for stage in range(4)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = super().forward(pixels)
        for stage in self.stages:
            x = stage(x)
        return x.float().mean((2, 3, 4))

    def weights(self) -> dict[str, torch.Tensor]:
        """Everything that the feature depends on."""
        return weights_without_counters(self)


@dataclass(frozen=True, kw_only=True)
class SlowFile:
    """Dimensions of a rhoBYOL Slow network whose released file can be read; the defaults are those of R50 16x4."""

    width: int = 64
    """Channels of the stem; D = 32 width."""
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Residual blocks of each stage."""
    num_frames: int = 16
    """T, frames in a clip; any number can be computed."""
    size: int = 224
    """Height and width of a frame in pixels; any size can be computed."""

    def load(self, file: Path, *, name: str) -> tuple[nn.Module, BackboneSpec]:
        """The momentum teacher in `file`, and what it expects.

        Raises:
            InputError: no such file.
            DataError: not such a checkpoint, or of other dimensions; each name that does not fit is named.
        """
        _, state = model_state(file)
        require_teacher(state, file=file)
        model = self.build()
        fill(model, state, self.layout(), file=file)
        source = {"kind": "checkpoint", "file": file.name, "layout": "rhoBYOL, momentum teacher"}
        return model, self.spec(name=name, source=source)

    def spec(self, *, name: str, source: Mapping[str, Any] | None = None) -> BackboneSpec:
        """What the network expects and yields."""
        return BackboneSpec(
            name=name,
            architecture="Slow-R50",
            feature_dim=32 * self.width,
            num_frames=self.num_frames,
            stride=4,
            size=self.size,
            mean=MEAN,
            std=STD,
            pooling="mean over time and space of the last stage",
            source=source or {},
        )

    def build(self, *, needed_for: str = "") -> SlowR50:
        """The network without weights, on the meta device."""
        with torch.device("meta"):
            return SlowR50(width=self.width, blocks=self.blocks).eval()

    def layout(self) -> Layout:
        """Authors' names of every weight -> names in `SlowR50`."""
        names = pathway_names(
            0, blocks=self.blocks, stem="", stages=[f"stages.{stage}." for stage in range(4)]
        )
        return Layout(
            network=f"rhoBYOL Slow-R50 (stages of {self.blocks} blocks, stem of {self.width} channels)",
            names={f"{TEACHER}{theirs}": ours for theirs, ours in names.items()},
            dropped=contrastive_leftovers(names),
        )
