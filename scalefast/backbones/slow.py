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

from scalefast.backbones.checkpoint import Layout, fill, read_checkpoint, section, shorten
from scalefast.backbones.residual import Bottleneck
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import DataError

__all__ = ["SlowFile", "SlowR50"]

_TEMPORAL = (1, 1, 3, 3)  # width over time of the first convolution of every block, by stage
_NORM = ("weight", "bias", "running_mean", "running_var")


class SlowR50(nn.Module):
    """Normalised clips float [N, 3, T, H, W] -> features float32 [N, D], the mean over time and space.

    Args:
        width: channels of the stem; the four stages give 4, 8, 16 and 32 times as many, so D = 32 width.
        blocks: residual blocks of each stage.
    """

    def __init__(self, *, width: int = 64, blocks: tuple[int, int, int, int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.width, self.blocks, self.feature_dim = width, blocks, 32 * width
        self.conv = nn.Conv3d(3, width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.norm = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.stages = nn.ModuleList()
        inputs = width
        for stage, (count, temporal) in enumerate(zip(blocks, _TEMPORAL, strict=True)):
            inner, layers = width * 2**stage, nn.Sequential()
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(
                    Bottleneck(inputs, inner, 4 * inner, temporal=temporal, stride=stride, project=index == 0)
                )
                inputs = 4 * inner
            self.stages.append(layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.norm(self.conv(pixels)).relu())
        for stage in self.stages:
            x = stage(x)
        return x.float().mean((2, 3, 4))

    def weights(self) -> dict[str, torch.Tensor]:
        """Everything that the feature depends on: not the counters of batches that normalisation keeps."""
        state = self.state_dict()
        return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


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
        state = section(read_checkpoint(file), "model_state", file=file)
        if not any(key.startswith("backbone_hist.") for key in state):
            raise DataError(
                f"{file}: expected rhoBYOL's momentum teacher, names beginning with 'backbone_hist.', under "
                f"'model_state'; found {shorten(state) or 'nothing'}"
            )
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
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
            pooling="mean over time and space of the last stage",
            source=source or {},
        )

    def build(self, *, needed_for: str = "") -> SlowR50:
        """The network without weights, on the meta device."""
        with torch.device("meta"):
            return SlowR50(width=self.width, blocks=self.blocks).eval()

    def layout(self) -> Layout:
        """Authors' names of every weight -> names in `SlowR50`."""
        names = _conv_and_norm("s1.pathway0_stem.conv", "s1.pathway0_stem.bn", "conv", "norm")
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                theirs, ours = f"s{stage + 2}.pathway0_res{index}", f"stages.{stage}.{index}"
                for number, part in enumerate("abc", start=1):
                    at = f"{theirs}.branch2.{part}"
                    names |= _conv_and_norm(at, f"{at}_bn", f"{ours}.conv{number}", f"{ours}.norm{number}")
                if index == 0:
                    at, short = f"{theirs}.branch1", f"{ours}.shortcut"
                    names |= _conv_and_norm(at, f"{at}_bn", f"{short}.0", f"{short}.1")
        return Layout(
            network=f"rhoBYOL Slow-R50 (stages of {self.blocks} blocks, stem of {self.width} channels)",
            names={f"backbone_hist.{theirs}": ours for theirs, ours in names.items()},
            dropped=_dropped(names),
        )


def _conv_and_norm(conv: str, norm: str, our_conv: str, our_norm: str) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {f"{conv}.weight": (f"{our_conv}.weight",)}
    return names | {f"{norm}.{part}": (f"{our_norm}.{part}",) for part in _NORM}


def _dropped(names: Mapping[str, Any]) -> tuple[str, ...]:
    """The network that was trained, both heads (projection, predictor), counters, and the training's own state."""
    network = "|".join(name.replace(".", r"\.") for name in names)
    return (
        rf"backbone\.({network})",
        r"backbone(_hist)?\.(head|ssl_\d+)\.[\w.]+",
        r"backbone(_hist)?\.s\d[\w.]*bn\.num_batches_tracked",
        r"ptr|iter|queue_x|knn_mem\.\w+",
    )
