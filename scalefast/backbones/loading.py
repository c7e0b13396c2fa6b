"""`load_backbone`: from a name, a folder or a hub id to a frozen clip encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from scalefast.backbones._precision import Precision
from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.r3d import R3D, R3DConfig
from scalefast.errors import InputError

__all__ = ["load_backbone"]

_OWN = {"r3d-tiny": R3DConfig(depth="tiny", stem="motion-energy", norm="group", pooling="pyramid", size=64), "r3d-18": R3DConfig(depth="18")}


def load_backbone(
    name_or_folder_or_hub_id: str | Path,
    checkpoint: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | Precision | None = None,
) -> FrozenBackbone:
    """A frozen clip encoder."""
    name = str(name_or_folder_or_hub_id)
    if name not in _OWN:
        raise InputError(f"no backbone is named {name!r}; known names: {', '.join(_OWN)}")
    if checkpoint is not None:
        raise InputError(f"backbone {name!r} takes no checkpoint: its weights come from a seed")
    encoder = R3D(_OWN[name])
    return FrozenBackbone(encoder, spec=encoder.spec(name), device=device, dtype=dtype)
