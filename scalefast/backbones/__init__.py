"""Frozen clip encoders: decoded clips in, one feature vector a clip out."""

from __future__ import annotations

from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.loading import load_backbone
from scalefast.backbones.r3d import R3D, R3DConfig
from scalefast.backbones.spec import BackboneSpec

__all__ = ["R3D", "BackboneSpec", "FrozenBackbone", "R3DConfig", "load_backbone"]
