"""From a feature store to the bank of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scalefast.features._stamps import Stamps
from scalefast.training.bank.batch import Bank
from scalefast.training.bank.contents import Sums, check_sets, describe, read_part
from scalefast.training.bank.placing import Residence, local_processes, place
from scalefast.training.bank.resident import ResidentBank
from scalefast.training.bank.sharded import ShardedBank
from scalefast.training.bank.streamed import StreamedBank
from scalefast.training.distributed import World
from scalefast.training.sampler import part_of

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["load_bank"]


def load_bank(
    store: FeatureStore | str | os.PathLike[str],
    *,
    views: int,
    world: World,
    residence: Residence = "auto",
    memory_gib: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Bank:
    """Read a store whole (each process its part of it), verify it, and keep it where training wants it.

    Args:
        store: a feature store or its folder.
        views: clips in each of the two sets that a step draws from a video.
        world: this process, and where it trains; all processes call this together.
        residence: in memory ("resident"), on the disk ("stream"), or whichever fits ("auto").
        memory_gib: the most that a process may hold in memory, GiB; None takes 60% of what is free.
        say: is told where the bank lies, if it does not lie in memory.

    Raises:
        InputError: sets of different lengths, fewer than `2 * views` clips a video, or a bank that does not fit
            where it is wanted.
        DataError: a damaged store, or a feature or position that is NaN or infinite (the video is named).
        TrainingError: another process refuses.
    """
    opened = _open(store)
    check_sets(opened, views=views)
    part = part_of(len(opened), rank=world.rank, world_size=world.size)
    # Positions are held as float32, whatever the store has.
    nbytes = (
        (part.stop - part.start)
        * (opened.features.nbytes + 4 * opened.positions.shape.numel())
        // len(opened)
    )
    found = world.on_every(
        lambda: place(
            residence, nbytes=nbytes, limit_gib=memory_gib, device=world.device, neighbours=local_processes()
        )
    )
    streamed = next((choice for choice in found if choice.streamed), None)
    if streamed is not None:
        say(streamed.reason)
    held = None if streamed is not None else _empty(opened, part.stop - part.start, world.device)
    stamps = Stamps(opened)
    sums = Sums.joined(world.on_every(lambda: read_part(opened, part, into=held)))
    facts = describe(opened, sums)
    if held is None:
        return StreamedBank(facts=facts, world=world, store=opened, stamps=stamps)
    kind = ResidentBank if world.size == 1 else ShardedBank
    return kind(facts=facts, world=world, features=held[0], positions=held[1])


def _open(store: FeatureStore | str | os.PathLike[str]) -> FeatureStore:
    from scalefast.features import FeatureStore

    return store if isinstance(store, FeatureStore) else FeatureStore.open(store)


def _empty(store: FeatureStore, videos: int, device: torch.device) -> tuple[Tensor, Tensor]:
    features = torch.empty(videos, *store.features.shape[1:], dtype=store.features.dtype, device=device)
    return features, torch.empty(videos, *store.positions.shape[1:], device=device)
