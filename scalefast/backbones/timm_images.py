"""Networks of the timm library, an image at a time: the pooled feature of each frame, mean over the frames.

timm needs torchvision, which does not import beside the CPU build of torch: an extra of its own, for CUDA builds. Names
are `timm/NAME`, as `timm.create_model` takes them; weights are those that timm downloads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import InputError, require

__all__ = ["PREFIX", "TimmEncoder", "load_timm"]

PREFIX = "timm/"
_FRAMES, _STRIDE = 16, 4  # of a clip, as of the other networks for images


class TimmEncoder(nn.Module):
    """float [N, 3, T, H, W] -> float32 [N, D]: the network's pooled feature of each frame, mean over the frames."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        frames = pixels.transpose(1, 2)
        pooled = self.model(frames.flatten(0, 1))
        return pooled.float().unflatten(0, frames.shape[:2]).mean(1)


def load_timm(name: str) -> tuple[nn.Module, BackboneSpec]:
    """The pretrained network `timm/NAME` without its classifier, and what it expects, as timm states it.

    Raises:
        InputError: timm has no such network with weights, they cannot be had, or its input is not square.
        MissingExtraError: timm (or what it needs) is not installed.
    """
    timm = require("timm", extra="timm", needed_for=f"the backbone {name}")
    model_name = name.removeprefix(PREFIX)
    if not timm.is_model(model_name.partition(".")[0]):
        raise InputError(
            f"backbone {name!r}: timm {timm.__version__} has no network {model_name.partition('.')[0]!r}"
        )
    try:
        model: Any = timm.create_model(model_name, pretrained=True, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"backbone {name!r}: its weights cannot be had: {reason}") from error
    stated = timm.data.resolve_model_data_config(model)
    channels, height, width = stated["input_size"]
    if channels != 3 or height != width:
        raise InputError(
            f"backbone {name!r}: expected a square colour input, timm states {stated['input_size']}"
        )
    return TimmEncoder(model.eval()), BackboneSpec(
        name=name,
        architecture=f"timm {model_name}",
        feature_dim=int(model.num_features),
        num_frames=_FRAMES,
        stride=_STRIDE,
        size=int(height),
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        pooling="the network's pooled feature of each frame, mean over the frames",
        source={"kind": "timm", "name": model_name, "version": timm.__version__},
    )
