"""What the released video transformers of VideoMAE and V-JEPA 2 have in common: patches that span several frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalefast.backbones.spec import BackboneSpec

__all__ = ["TubeletFile"]


@dataclass(frozen=True, kw_only=True)
class TubeletFile:
    """Dimensions of a video transformer whose released file can be read."""

    label: str
    """For errors and the record: B, L, H or g."""
    width: int
    """D, of the tokens and of the feature."""
    depth: int
    """Blocks."""
    heads: int
    """Of the attention."""
    num_frames: int
    """T, frames in a clip."""
    size: int
    """Height and width of a frame in pixels."""
    patch: int = 16
    """Height and width of a patch in pixels; it spans `tubelet` frames."""
    tubelet: int = 2
    """Frames that a patch spans."""

    def describe(
        self, *, name: str, architecture: str, pooling: str, source: Mapping[str, Any] | None
    ) -> BackboneSpec:
        """What the network expects: frames of stride 4, normalised by ImageNet's mean and standard deviation."""
        return BackboneSpec(
            name=name,
            architecture=f"{architecture}-{self.label}",
            feature_dim=self.width,
            num_frames=self.num_frames,
            stride=4,
            size=self.size,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            pooling=pooling,
            source=source or {},
        )
