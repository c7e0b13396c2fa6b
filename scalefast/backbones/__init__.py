"""Frozen clip encoders: decoded clips in, one feature vector a clip out."""

from __future__ import annotations

from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.loading import load_backbone
from scalefast.backbones.r3d import R3D, R3DConfig
from scalefast.backbones.r3d_folder import load_r3d, save_r3d
from scalefast.backbones.recipes import ExtractionRecipe, recipe_for
from scalefast.backbones.registry import REGISTRY, NamedBackbone
from scalefast.backbones.saved import write_backbone
from scalefast.backbones.spec import BackboneSpec

__all__ = [
    "load_backbone",
    "FrozenBackbone",
    "BackboneSpec",
    "R3D",
    "R3DConfig",
    "save_r3d",
    "load_r3d",
    "write_backbone",
    "recipe_for",
    "ExtractionRecipe",
    "REGISTRY",
    "NamedBackbone",
]
