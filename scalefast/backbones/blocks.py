"""The blocks of a network in the order in which a clip passes them, to train the last ones or to save memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scalefast.backbones.encoders import ImageEncoder, TimesformerEncoder, VideoMAEEncoder, VJEPA2Encoder
from scalefast.backbones.gradient_cache import statistics_kept
from scalefast.backbones.r3d import R3D
from scalefast.backbones.slow import SlowR50
from scalefast.backbones.slowfast import SlowFastR50
from scalefast.errors import InputError

__all__ = ["Blocks", "blocks_of", "checkpoint_blocks"]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Where a network can be cut."""

    blocks: tuple[nn.Module, ...]
    """In the order of the forward pass."""
    after: tuple[nn.Module, ...]
    """What follows the last block: the final normalisation, where there is one."""


def blocks_of(encoder: nn.Module) -> Blocks:
    """The blocks of an encoder that `load_backbone` gave.

    Raises:
        InputError: an encoder of another class.
    """
    if isinstance(encoder, (R3D, SlowR50)):
        return Blocks(blocks=tuple(block for stage in encoder.stages for block in stage), after=())  # type: ignore[attr-defined]
    if isinstance(encoder, SlowFastR50):  # a stage of both pathways, since neither goes on without the other
        return Blocks(blocks=tuple(encoder.stages), after=())
    if not isinstance(encoder, (VideoMAEEncoder, TimesformerEncoder, VJEPA2Encoder, ImageEncoder)):
        raise InputError(
            f"a {type(encoder).__name__} has no blocks that are known; R3D, Slow, SlowFast and transformers have"
        )
    model: Any = encoder.model
    inner = getattr(
        model, "encoder", model
    )  # V-JEPA 2's is the encoder itself; ViT of transformers 5 has `layers`
    layers = inner.layer if hasattr(inner, "layer") else inner.layers
    norms = (getattr(model, "layernorm", None), getattr(encoder, "fc_norm", None))
    return Blocks(blocks=tuple(layers), after=tuple(norm for norm in norms if norm is not None))


def checkpoint_blocks(encoder: nn.Module) -> Callable[[], None]:
    """Keep only what enters each block that trains; its inside is computed again on the way back.

    Batch statistics are tracked once, in the first computation. Random numbers are drawn again as they were.

    Returns:
        A function that undoes it.
    """
    chosen = [
        block for block in blocks_of(encoder).blocks if any(p.requires_grad for p in block.parameters())
    ]
    for block in chosen:
        block.forward = partial(_checkpointed, block, block.forward)

    def undo() -> None:
        for block in chosen:
            del block.forward  # the class's own is there again

    return undo


def _checkpointed(block: nn.Module, forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **options)

    def contexts() -> tuple[Any, Any]:
        return statistics_kept(None), statistics_kept(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **options)
