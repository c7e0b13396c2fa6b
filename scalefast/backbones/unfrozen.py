"""A backbone whose last blocks train, with memory that does not grow with the number of clips.

Legend: `N` clips, `T` frames, `S` pixels, `D` feature, `B` videos, `V` clips of a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalefast._precision import resolve_precision
from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.blocks import blocks_of, checkpoint_blocks
from scalefast.backbones.gradient_cache import Losses, backward_in_chunks
from scalefast.backbones.saved import write_backbone
from scalefast.errors import InputError

__all__ = ["UnfrozenBackbone"]


class UnfrozenBackbone(nn.Module):
    """A clip encoder of which the last blocks, and what follows them, train.

    The network stays in eval mode: running statistics and dropout are those of the frozen one, so that a clip's feature
    depends on that clip alone and gradients in chunks are exactly those of one pass. The blocks before the first
    trained one keep no activations.

    Args:
        backbone: as loaded; its encoder is taken over (the frozen one no longer describes it after a step).
        last: blocks that train; None: the whole network, stem included.
        checkpointing: keep only what enters each trained block, and compute its inside again on the way back.

    Raises:
        InputError: more blocks than there are, none, or an encoder without known blocks.
    """

    def __init__(
        self, backbone: FrozenBackbone, *, last: int | None = None, checkpointing: bool = True
    ) -> None:
        super().__init__()
        self.backbone = backbone
        encoder = backbone.encoder
        parts = blocks_of(encoder)
        if last is not None and not (isinstance(last, int) and 1 <= last <= len(parts.blocks)):
            raise InputError(
                f"backbone {backbone.name!r} has {len(parts.blocks)} blocks, of which the last {last!r} cannot train"
            )
        trained = [encoder] if last is None else [*parts.blocks[-last:], *parts.after]
        for module in trained:
            module.requires_grad_(True)
        if checkpointing:
            checkpoint_blocks(encoder)

    @property
    def feature_dim(self) -> int:
        """D, the width of the feature."""
        return int(self.backbone.feature_dim)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that train."""
        return [p for p in self.backbone.encoder.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> UnfrozenBackbone:
        """Stays in eval mode, as the class says; gradients flow all the same."""
        return super().train(False)

    def forward(self, clips: Tensor) -> Tensor:
        """uint8 [N, T, S, S, 3] -> float32 [N, D], with gradient.

        Raises:
            InputError: another shape, dtype, number of frames or size.
        """
        backbone = self.backbone
        backbone.check(clips)
        dtype = resolve_precision(backbone.precision, device=backbone.device)  # type: ignore[arg-type]
        lower = dtype != torch.float32
        arithmetic = torch.autocast(backbone.device.type, dtype=dtype) if lower else nullcontext()
        with arithmetic:
            return backbone.encoder(backbone.normalize(clips)).float()

    def backward(
        self, clips: Tensor, judge: Callable[[Tensor], Losses], *, chunk: int | None = None
    ) -> Losses:
        """`judge(self(clips)).loss.backward()` with the activations of `chunk` clips at a time.

        Args:
            clips: uint8 [..., T, S, S, 3], on any device; leading dimensions come back in the features.
            judge: float32 features [..., D] -> what has a `.loss`.
            chunk: clips at a time; None: all at once.

        Returns:
            What `judge` returned; gradients are accumulated.
        """
        lead = clips.shape[:-4]
        return backward_in_chunks(
            self,
            clips.flatten(0, -5),
            lambda features: judge(features.unflatten(0, lead)),
            chunk=chunk,
            encoder=self.backbone.encoder,
        )

    def save(self, folder: str | Path, *, source: Mapping[str, Any] | None = None) -> None:
        """Write the network as a backbone folder, which `load_backbone` reads; files of an old one are replaced."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        spec = self.backbone.spec
        if source is None:
            source = {"kind": "unfrozen", "start": spec.name, "start_source": dict(spec.source)}
        write_backbone(self.backbone.encoder, spec, path, source=source)
