"""Clips of other lengths and sizes than a network was trained on.

Positions are carried over to the new grid of patches, by a rule for each family; no weight changes:

- VideoMAE: its fixed table of sines is resized, bicubic in space and linear in time, so that a patch keeps the
  position of the place that it shows. transformers' class refuses other sizes.
- TimeSformer and SVT: learned embeddings of space and of time are resized to the nearest, as their authors do.
- V-JEPA 2: rotary positions count patches, so that a larger grid goes on counting.
- ViT and DINOv2, a frame at a time: learned embeddings, bicubic, by transformers itself.
- timm, a frame at a time: any number of frames, of the size that timm states.
- R3D, Slow-R50 and SlowFast-R50: convolutions have no positions; SlowFast takes multiples of its alpha frames.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from scalefast.backbones.encoders import ImageEncoder, TimesformerEncoder, VideoMAEEncoder, VJEPA2Encoder
from scalefast.backbones.r3d import R3D
from scalefast.backbones.slow import SlowR50
from scalefast.backbones.slowfast import SlowFastR50
from scalefast.backbones.spec import BackboneSpec
from scalefast.backbones.timm_images import TimmEncoder
from scalefast.errors import InputError

__all__ = ["fit_to", "resize_table"]


def fit_to(
    encoder: nn.Module, spec: BackboneSpec, *, num_frames: int | None, size: int | None
) -> BackboneSpec:
    """Change in place what clips `encoder` takes; the spec that says so.

    Args:
        encoder: as loaded, described by `spec`.
        num_frames: T, frames in a clip; None keeps it.
        size: height and width of a frame in pixels; None keeps it.

    Raises:
        InputError: not positive integers, or not multiples of a patch.
    """
    # first of all that they are numbers: the spec's own check
    changed = dataclasses.replace(
        spec,
        num_frames=spec.num_frames if num_frames is None else num_frames,
        size=spec.size if size is None else size,
    )
    if (changed.num_frames, changed.size) == (spec.num_frames, spec.size):
        return spec
    if isinstance(encoder, VideoMAEEncoder):
        _videomae(encoder.model, spec, changed)
    elif isinstance(encoder, TimesformerEncoder):
        patch = int(encoder.model.config.patch_size)
        _check_patches(changed, patch=patch, tubelet=1)
        _configure(encoder.model, num_frames=changed.num_frames, image_size=changed.size)
    elif isinstance(encoder, VJEPA2Encoder):
        _vjepa2(encoder.model, changed)
    elif isinstance(encoder, ImageEncoder):
        _check_patches(changed, patch=int(encoder.model.config.patch_size), tubelet=1)
    elif isinstance(encoder, R3D):
        encoder.config = dataclasses.replace(encoder.config, num_frames=changed.num_frames, size=changed.size)
    elif isinstance(encoder, SlowFastR50):
        if changed.num_frames % encoder.alpha:
            raise InputError(
                f"backbone {spec.name!r}: num_frames must be a multiple of {encoder.alpha}, of which its Slow pathway "
                f"sees one, got {changed.num_frames}"
            )
    elif isinstance(encoder, TimmEncoder) and changed.size != spec.size:
        raise InputError(
            f"backbone {spec.name!r} takes frames of {spec.size} x {spec.size} pixels only, got {size}"
        )
    elif not isinstance(encoder, (SlowR50, TimmEncoder)):
        raise InputError(
            f"backbone {spec.name!r} takes clips of {spec.num_frames} frames of {spec.size} x {spec.size} pixels "
            f"only, got {num_frames = }, {size = }"
        )
    return changed


def resize_table(table: torch.Tensor, *, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """Positions of a grid of patches resized to another: bicubic in space, linear in time.

    Args:
        table: [1, t s s, D], for each of t layers the rows of a square of s x s patches.
        old: (t, s) of the table.
        new: (t, s) wanted.

    Returns:
        [1, t' s' s', D], of the same dtype.
    """
    (t, s), (t_new, s_new) = old, new
    assert table.shape[:2] == (1, t * s * s), (table.shape, old)
    grid = table.view(t, s, s, -1).permute(0, 3, 1, 2)
    if s_new != s:
        grid = F.interpolate(grid, size=(s_new, s_new), mode="bicubic", align_corners=False)
    if t_new != t:
        over_time = grid.flatten(1).T[None]
        over_time = F.interpolate(over_time, size=t_new, mode="linear", align_corners=False)
        grid = over_time[0].T.reshape(t_new, -1, s_new, s_new)
    return grid.permute(0, 2, 3, 1).reshape(1, t_new * s_new * s_new, -1).contiguous()


def _videomae(model: Any, old: BackboneSpec, new: BackboneSpec) -> None:
    patches = model.embeddings.patch_embeddings
    patch, tubelet = int(patches.patch_size[0]), int(patches.tubelet_size)
    _check_patches(new, patch=patch, tubelet=tubelet)
    model.embeddings.position_embeddings = resize_table(
        model.embeddings.position_embeddings,
        old=(old.num_frames // tubelet, old.size // patch),
        new=(new.num_frames // tubelet, new.size // patch),
    )
    patches.image_size = (new.size, new.size)
    _configure(model, num_frames=new.num_frames, image_size=new.size)


def _vjepa2(encoder: Any, new: BackboneSpec) -> None:
    patch, tubelet = int(encoder.config.patch_size), int(encoder.config.tubelet_size)
    _check_patches(new, patch=patch, tubelet=tubelet)
    for module in encoder.modules():
        if hasattr(module, "grid_size"):  # of the rotary positions
            module.grid_size, module.grid_depth = new.size // patch, new.num_frames // tubelet
    _configure(encoder, frames_per_clip=new.num_frames, crop_size=new.size)


def _check_patches(spec: BackboneSpec, *, patch: int, tubelet: int) -> None:
    if spec.size % patch or spec.size < 2 * patch:
        raise InputError(
            f"backbone {spec.name!r}: size must be a multiple of its patches of {patch} pixels, two at least, "
            f"got {spec.size}"
        )
    if spec.num_frames % tubelet:
        raise InputError(
            f"backbone {spec.name!r}: num_frames must be a multiple of the {tubelet} frames that a patch spans, "
            f"got {spec.num_frames}"
        )


def _configure(model: nn.Module, **fields: int) -> None:
    # layers keep the configuration that they were built with, usually one object
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None:
            for field, value in fields.items():
                setattr(config, field, value)
