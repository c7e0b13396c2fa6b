"""Gradients of a loss that looks at many clips at once, with the activations of only a few of them in memory.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (2021, arXiv 2101.06983): encode
all clips without gradient, chunk by chunk; take the gradient of the loss with respect to the features; then encode each
chunk again, now with gradient, and hand it its part. Two forward passes for memory that does not grow with the batch.

Legend: `N` clips, `D` feature.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scalefast.errors import InputError

__all__ = ["HasLoss", "backward_in_chunks", "statistics_kept"]


class HasLoss(Protocol):
    """What a judge of features returns."""

    @property
    def loss(self) -> Tensor:
        """0-d, to call backward on."""


Losses = TypeVar("Losses", bound=HasLoss)


def backward_in_chunks(
    encode: Callable[[Tensor], Tensor],
    clips: Tensor,
    judge: Callable[[Tensor], Losses],
    *,
    chunk: int | None = None,
    encoder: nn.Module | None = None,
) -> Losses:
    """`losses = judge(encode(clips)); losses.loss.backward()`, with activations of `chunk` clips at a time.

    Gradients are those of one pass, wherever a feature depends on its own clip alone. Batch normalisation in training
    mode looks at its chunk, as it looks at its rank in distributed training: gradients are then those of one pass in
    which every chunk is encoded by itself, and running statistics see every chunk once. Dropout in `encode` draws the
    same numbers in both passes.

    Args:
        encode: clips of one chunk -> [n, D], with gradient where gradients are enabled. If it computes in mixed
            precision, it enters autocast itself: weights cast in the first pass would carry no gradient in the second.
        clips: [N, ...], on any device.
        judge: features [N, D] -> what has a `.loss`; called once.
        chunk: clips whose activations are kept at a time; None: all, in one pass.
        encoder: the module whose running statistics the first pass must leave alone.

    Returns:
        What `judge` returned; gradients of all parameters that took part are accumulated.

    Raises:
        InputError: chunk below 1, or no clips.
    """
    if len(clips) == 0 or (chunk is not None and chunk < 1):
        raise InputError(
            f"expected clips, and chunk of at least 1 or None; got {len(clips)} clips, {chunk = }"
        )
    if chunk is None or chunk >= len(clips):
        losses = judge(encode(clips))
        losses.loss.backward()
        return losses
    devices = [clips.device] if clips.is_cuda else []
    parts, states, features = clips.split(chunk), [], []
    with torch.no_grad(), statistics_kept(encoder):
        for part in parts:
            states.append(_random_state(devices))
            features.append(encode(part))
    torch.clear_autocast_cache()
    leaf = torch.cat(features).requires_grad_()
    losses = judge(leaf)
    losses.loss.backward()
    assert leaf.grad is not None
    for part, state, gradient in zip(parts, states, leaf.grad.split(chunk), strict=True):
        with torch.random.fork_rng(devices=devices):
            _set_random_state(state, devices)
            again = encode(part)
        torch.autograd.backward(again, gradient.to(again.dtype))
    return losses


@contextlib.contextmanager
def statistics_kept(module: nn.Module | None) -> Iterator[None]:
    """Leave running statistics as they are, while training mode still normalises by those of the batch."""
    modules = module.modules() if module is not None else ()
    norms = [m for m in modules if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # the same computation with nothing of the batch taken over, so that checkpoints find the same tensors again
        norm.momentum = 0.0
        norm.num_batches_tracked = (
            None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
        )
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _random_state(devices: list[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def _set_random_state(state: list[Tensor], devices: list[torch.device]) -> None:
    torch.set_rng_state(state[0])
    for device, its in zip(devices, state[1:], strict=True):
        torch.cuda.set_rng_state(its, device)
