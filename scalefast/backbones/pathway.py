"""What the Slow network and both pathways of SlowFast networks consist of, and how PySlowFast names it in its files.

Legend: `N` clips, `T` frames, `H` x `W` pixels, `C` channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefast.backbones.checkpoint import read_checkpoint, section, shorten
from scalefast.backbones.residual import Bottleneck
from scalefast.errors import DataError

__all__ = [
    "MEAN",
    "STD",
    "TEACHER",
    "Names",
    "Stem",
    "contrastive_leftovers",
    "conv_and_norm",
    "model_state",
    "pathway_names",
    "require_teacher",
    "residual_stage",
    "weights_without_counters",
]

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)  # of all of PySlowFast's networks
TEACHER = "backbone_hist."
"""What names of rhoBYOL's momentum teacher begin with."""

Names = dict[str, tuple[str, ...]]
"""Authors' name -> ours, as a `Layout` has them."""

_NORM = ("weight", "bias", "running_mean", "running_var")


class Stem(nn.Module):
    """float [N, 3, T, H, W] -> [N, C, T, H/4, W/4]: a convolution of `span` x 7 x 7, and the maximum of 3 x 3."""

    def __init__(self, outputs: int, *, span: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, outputs, (span, 7, 7), (1, 2, 2), (span // 2, 3, 3), bias=False)
        self.norm = nn.BatchNorm3d(outputs)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.pool(self.norm(self.conv(pixels)).relu())


def residual_stage(inputs: int, inner: int, *, blocks: int, temporal: int, stride: int) -> nn.Sequential:
    """Bottlenecks from `inputs` channels to 4 `inner`; the first one strides in space and projects its input."""
    outputs = 4 * inner
    return nn.Sequential(
        *(
            Bottleneck(
                outputs if index else inputs,
                inner,
                outputs,
                temporal=temporal,
                stride=1 if index else stride,
                project=index == 0,
            )
            for index in range(blocks)
        )
    )


def weights_without_counters(module: nn.Module) -> dict[str, torch.Tensor]:
    """Everything that a feature depends on: not the counters of batches that normalisation keeps."""
    state = module.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def model_state(file: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A PySlowFast checkpoint: the whole of it, and the weights that it holds.

    Raises:
        InputError: no such file.
        DataError: it holds more than weights, is damaged, or has no weights under `model_state`.
    """
    whole = read_checkpoint(file)
    return whole, section(whole, "model_state", file=file)


def require_teacher(state: Mapping[str, Any], *, file: Path) -> None:
    """Refuse weights that hold no momentum teacher.

    Raises:
        DataError: no name begins with `TEACHER`.
    """
    if not any(name.startswith(TEACHER) for name in state):
        raise DataError(
            f"{file}: expected rhoBYOL's momentum teacher, names beginning with {TEACHER!r}, under "
            f"'model_state'; found {shorten(state) or 'nothing'}"
        )


def conv_and_norm(conv: str, norm: str, our_conv: str, our_norm: str) -> Names:
    """A convolution and the batch normalisation after it."""
    names: Names = {f"{conv}.weight": (f"{our_conv}.weight",)}
    return names | {f"{norm}.{part}": (f"{our_norm}.{part}",) for part in _NORM}


def pathway_names(pathway: int, *, blocks: Sequence[int], stem: str, stages: Sequence[str]) -> Names:
    """Stem and stages of one pathway.

    Args:
        pathway: 0 is the Slow one, 1 the Fast one.
        blocks: of each stage.
        stem: what our names of the stem begin with.
        stages: what our names of each stage's blocks begin with.
    """
    at = f"s1.pathway{pathway}_stem"
    names = conv_and_norm(f"{at}.conv", f"{at}.bn", f"{stem}conv", f"{stem}norm")
    for stage, (count, prefix) in enumerate(zip(blocks, stages, strict=True), start=2):
        for index in range(count):
            theirs, ours = f"s{stage}.pathway{pathway}_res{index}", f"{prefix}{index}"
            for number, part in enumerate("abc", start=1):
                at = f"{theirs}.branch2.{part}"
                names |= conv_and_norm(at, f"{at}_bn", f"{ours}.conv{number}", f"{ours}.norm{number}")
        names |= conv_and_norm(
            f"s{stage}.pathway{pathway}_res0.branch1",
            f"s{stage}.pathway{pathway}_res0.branch1_bn",
            f"{prefix}0.shortcut.0",
            f"{prefix}0.shortcut.1",
        )
    return names


def contrastive_leftovers(names: Iterable[str]) -> tuple[str, ...]:
    """What a file of rhoBYOL holds beside the teacher: the network that was trained, both heads (projection,
    predictor), counters, and the training's own state.

    Args:
        names: of the network, without prefix.
    """
    network = "|".join(name.replace(".", r"\.") for name in names)
    return (
        rf"backbone\.({network})",
        r"backbone(_hist)?\.(head|ssl_\d+)\.[\w.]+",
        r"backbone(_hist)?\.s\d[\w.]*bn\.num_batches_tracked",
        r"ptr|iter|queue_x|knn_mem\.\w+",
    )
