"""SlowFast-R50 (Feichtenhofer et al., ICCV 2019, arXiv 1812.03982): a Slow and a Fast pathway with lateral connections.

The Slow pathway sees every `alpha`-th frame, the Fast one all of them with an eighth of the channels. Before each
stage, and nowhere else, the Slow one is joined by what a convolution over time makes of the Fast one. Files are
PySlowFast's: a network trained with labels, or by rhoBYOL, whose momentum teacher is then taken.

Legend: `N` clips, `T` frames, `H` x `W` pixels, `D` width of the feature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalefast.backbones.checkpoint import Layout, fill
from scalefast.backbones.pathway import (
    MEAN,
    STD,
    TEACHER,
    Names,
    Stem,
    contrastive_leftovers,
    conv_and_norm,
    model_state,
    pathway_names,
    residual_stage,
    weights_without_counters,
)
from scalefast.backbones.slow import SLOW_SPANS
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import DataError, InputError

__all__ = ["SlowFastFile", "SlowFastR50", "SlowFastStage"]

BETA = 8  # the Fast pathway has 1 / BETA of the Slow one's channels
RATIO = 2  # a lateral connection gives RATIO times the Fast pathway's channels
_FAST_STEM, _FAST_SPAN = 5, 3  # widths over time of the Fast pathway's convolutions
_ALPHA = re.compile(r"^SLOWFAST:\n(?:[ \t].*\n)*?[ \t]+ALPHA:[ \t]*(\d+)[ \t]*$", re.MULTILINE)
_CLASSIFIER = (r"head\.projection\.(weight|bias)", r"s\d[\w.]*bn\.num_batches_tracked")


class Lateral(nn.Module):
    """From the Fast pathway to the Slow one: [N, C, T, h, w] -> [N, 2C, T / alpha, h, w]."""

    def __init__(self, channels: int, *, alpha: int, span: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            channels, RATIO * channels, (span, 1, 1), (alpha, 1, 1), (span // 2, 0, 0), bias=False
        )
        self.norm = nn.BatchNorm3d(RATIO * channels)

    def forward(self, fast: Tensor) -> Tensor:
        return self.norm(self.conv(fast)).relu()


class SlowFastStage(nn.Module):
    """A lateral connection, and the residual blocks of both pathways after it."""

    def __init__(self, lateral: Lateral, *, slow: nn.Sequential, fast: nn.Sequential) -> None:
        super().__init__()
        self.lateral, self.slow, self.fast = lateral, slow, fast

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        return self.slow(torch.cat([slow, self.lateral(fast)], dim=1)), self.fast(fast)


class SlowFastR50(nn.Module):
    """Normalised clips float [N, 3, T, H, W] -> features float32 [N, D]: the means over time and space of both
    pathways, the Slow one's 32 width numbers first.

    Args:
        width: channels of the Slow pathway's stem, a multiple of 8; D = 36 width.
        blocks: residual blocks of each stage, in each pathway.
        alpha: frames that the Fast pathway sees for each one of the Slow one; T is a multiple of it.
        span: frames that a lateral connection sees, an odd number.

    Raises:
        InputError: width is no multiple of 8, alpha not positive, or span not odd.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        blocks: tuple[int, int, int, int] = (3, 4, 6, 3),
        alpha: int = 4,
        span: int = 7,
    ) -> None:
        super().__init__()
        if width % BETA:
            raise InputError(f"SlowFast: width must be a multiple of {BETA}, got {width}")
        if alpha < 1 or span < 1 or span % 2 == 0:
            raise InputError(f"SlowFast: alpha must be positive and span odd, got {alpha = }, {span = }")
        self.dimensions = {"width": width, "blocks": blocks, "alpha": alpha, "span": span}
        """What it was built with."""
        self.alpha, self.feature_dim = alpha, 32 * width + 32 * width // BETA
        self.stems = nn.ModuleDict({"slow": Stem(width), "fast": Stem(width // BETA, span=_FAST_STEM)})
        self.stages = nn.ModuleList()
        slow, fast = width, width // BETA
        for stage, count in enumerate(blocks):
            inner, stride = width * 2**stage, 1 if stage == 0 else 2
            self.stages.append(
                SlowFastStage(
                    Lateral(fast, alpha=alpha, span=span),
                    slow=residual_stage(
                        slow + RATIO * fast, inner, blocks=count, temporal=SLOW_SPANS[stage], stride=stride
                    ),
                    fast=residual_stage(
                        fast, inner // BETA, blocks=count, temporal=_FAST_SPAN, stride=stride
                    ),
                )
            )
            slow, fast = 4 * inner, 4 * inner // BETA

    def forward(self, pixels: Tensor) -> Tensor:
        slow = self.stems["slow"](_pick(pixels, self.slow_frames(pixels.shape[2])))
        fast = self.stems["fast"](pixels)
        for stage in self.stages:
            slow, fast = stage(slow, fast)
        return torch.cat([slow.float().mean((2, 3, 4)), fast.float().mean((2, 3, 4))], dim=1)

    def slow_frames(self, frames: int) -> list[int]:
        """Which frames the Slow pathway sees: spread from the first to the last, as PySlowFast's datasets do it."""
        return torch.linspace(0, frames - 1, frames // self.alpha, device="cpu").long().tolist()

    def weights(self) -> dict[str, Tensor]:
        """Everything that the feature depends on."""
        return weights_without_counters(self)


def _pick(pixels: Tensor, frames: list[int]) -> Tensor:
    """Some frames of [N, C, T, H, W], in the memory format that the clip has."""
    picked = torch.stack([pixels[:, :, frame] for frame in frames], dim=2)
    if not pixels.is_contiguous(memory_format=torch.channels_last_3d):
        return picked
    # Of a single clip the stack's first stride is arbitrary. `contiguous` passes over that; convolutions do not,
    # and would leave the format, in which alone those in bf16 are fast.
    return picked.clone(memory_format=torch.channels_last_3d)


@dataclass(frozen=True, kw_only=True)
class SlowFastFile:
    """Dimensions of a SlowFast network whose PySlowFast file can be read; the defaults are those of R50 8x8."""

    width: int = 64
    """Channels of the Slow pathway's stem; D = 36 width."""
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Residual blocks of each stage, in each pathway."""
    alpha: int = 4
    """Frames of the Fast pathway for each one of the Slow one."""
    span: int = 7
    """Frames that a lateral connection sees."""
    num_frames: int = 32
    """T, frames in a clip, of the Fast pathway; any multiple of `alpha` can be computed."""
    size: int = 224
    """Height and width of a frame in pixels; any size can be computed."""

    def load(self, file: Path, *, name: str) -> tuple[nn.Module, BackboneSpec]:
        """The network in `file`, of rhoBYOL the momentum teacher, and what it expects.

        Raises:
            InputError: no such file.
            DataError: not such a checkpoint, or of other dimensions; each name that does not fit is named.
        """
        whole, state = model_state(file)
        teacher = any(key.startswith(("backbone.", TEACHER)) for key in state)
        model = self.build()
        fill(model, state, self.layout(teacher=teacher), file=file)
        self._check_options(whole.get("cfg"), file=file)
        kind = "rhoBYOL, momentum teacher" if teacher else "PySlowFast"
        return model, self.spec(name=name, source={"kind": "checkpoint", "file": file.name, "layout": kind})

    def spec(self, *, name: str, source: Mapping[str, Any] | None = None) -> BackboneSpec:
        """What the network expects and yields."""
        return BackboneSpec(
            name=name,
            architecture=f"SlowFast-R50, alpha {self.alpha}",
            feature_dim=36 * self.width,
            num_frames=self.num_frames,
            stride=2,
            size=self.size,
            mean=MEAN,
            std=STD,
            pooling="mean over time and space of each pathway's last stage, Slow before Fast",
            source=source or {},
        )

    def build(self, *, needed_for: str = "") -> SlowFastR50:
        """The network without weights, on the meta device."""
        with torch.device("meta"):
            return SlowFastR50(width=self.width, blocks=self.blocks, alpha=self.alpha, span=self.span).eval()

    def layout(self, *, teacher: bool) -> Layout:
        """Authors' names of every weight -> names in `SlowFastR50`; `teacher`: of rhoBYOL's files."""
        names: Names = {}
        for number, pathway in enumerate(("slow", "fast")):
            stages = [f"stages.{stage}.{pathway}." for stage in range(4)]
            names |= pathway_names(number, blocks=self.blocks, stem=f"stems.{pathway}.", stages=stages)
        for stage in range(4):
            theirs, ours = f"s{stage + 1}_fuse", f"stages.{stage}.lateral"
            names |= conv_and_norm(f"{theirs}.conv_f2s", f"{theirs}.bn", f"{ours}.conv", f"{ours}.norm")
        return Layout(
            network=(
                f"SlowFast-R50 (stages of {self.blocks} blocks, stem of {self.width} channels, "
                f"lateral connections of {self.span} frames)"
            ),
            names={f"{TEACHER if teacher else ''}{theirs}": ours for theirs, ours in names.items()},
            dropped=contrastive_leftovers(names) if teacher else _CLASSIFIER,
        )

    def _check_options(self, options: Any, *, file: Path) -> None:
        """Compare `alpha`, which no weight tells, with the training's options (YAML), where the file has them."""
        stated = _ALPHA.search(options) if isinstance(options, str) else None
        if stated and int(stated[1]) != self.alpha:
            raise DataError(
                f"{file} does not fit SlowFast-R50: its cfg states SLOWFAST.ALPHA {stated[1]}, expected {self.alpha}"
            )
