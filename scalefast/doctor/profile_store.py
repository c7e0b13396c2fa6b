"""Timing the training part of a run: drawing batches from the bank, and steps of the trainer on them.

Shapes: `N` videos, `C` clips a video, `D` feature.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from scalefast.doctor.profile import Profile
from scalefast.kernels import RandomState

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.training import PretrainConfig
    from scalefast.training.bank import Bank, Batch
    from scalefast.training.session import Session

__all__ = ["Training", "profile_store", "time_training", "trained_on"]

_ROUNDS = 3
_RESIDENT_VIDEOS = 4096
"""Videos that a timed bank holds: more would take longer to read, not longer to draw from."""


class Training(NamedTuple):
    """What a video costs in every epoch."""

    bank: float
    """Seconds to draw it."""

    step: float
    """Seconds to train on it."""

    told: str
    """What was measured."""


def profile_store(
    path: str | Path, *, config: PretrainConfig, device: torch.device, rounds: int = _ROUNDS
) -> Profile:
    """What a run of this configuration on a store spends its time on; nothing is written.

    Raises:
        InputError, DataError: the store cannot be trained on.
    """
    from scalefast.features import FeatureStore
    from scalefast.training.bank.contents import check_sets

    store = FeatureStore.open(path)
    check_sets(store, views=config.views)
    measured = time_training(store, config=config, device=device, rounds=rounds)
    times = trained_on(len(store), config=config)
    return Profile(
        source=str(path),
        circumstances=(measured.told,),
        videos=len(store),
        epochs=config.epochs,
        seconds={"bank": measured.bank * times, "step": measured.step * times},
    )


def trained_on(videos: int, *, config: PretrainConfig) -> int:
    """How often a run trains on a video: every epoch on all of them but those that no full batch holds."""
    from scalefast.training.sampler import BatchPlan

    plan = BatchPlan(num_videos=videos, batch_size=config.batch_size, epochs=config.epochs, seed=config.seed)
    return plan.batch * plan.total_steps


def time_training(
    store: FeatureStore, *, config: PretrainConfig, device: torch.device, rounds: int = _ROUNDS
) -> Training:
    """Draw some batches and take some steps, the fastest of `rounds` each, as a run on this store would."""
    from scalefast.training.bank import ResidentBank
    from scalefast.training.step import Step
    from scalefast.training.trainer import resolved

    config = resolved(config, device=device)
    bank = _bank(store, device=device)
    session = _session(bank, config)
    draw, take = _next_batch(session, rounds=rounds), Step(session)
    batch, rate = draw(), config.learning_rate
    drawing = _fastest(draw, rounds=rounds, device=device)
    whole = _fastest(lambda: take(batch, learning_rate=rate), rounds=rounds, device=device)
    resident = isinstance(bank, ResidentBank)
    kind = "in memory" if resident else "streamed from the store"
    told = (
        f"training: batches of {session.plan.batch} videos, 2 x {config.views} clips of {bank.feature_dim} numbers, "
        f"{config.precision} on {device.type}, features {kind}; {whole * 1e3:.3g} ms a step"
    )
    step = max(whole - drawing, 0.0) if resident else whole  # a step draws from a resident bank itself
    return Training(drawing / session.plan.batch, step / session.plan.batch, told)


def _bank(store: FeatureStore, *, device: torch.device) -> Bank:
    """Where a run would hold the features, with as many of them as timing needs."""
    from scalefast.training.bank import ResidentBank, StreamedBank
    from scalefast.training.bank.placing import place
    from scalefast.training.distributed import World

    videos, clips, width = store.features.shape
    world = World(rank=0, size=1, device=device)
    nbytes = store.features.nbytes + 4 * store.positions.shape.numel()
    facts = {"videos": videos, "clips": clips, "feature_dim": width}
    if place("auto", nbytes=nbytes, limit_gib=None, device=device, neighbours=1).streamed:
        return StreamedBank(facts=facts, world=world, store=store)
    held = slice(0, min(videos, _RESIDENT_VIDEOS))
    return ResidentBank(
        facts={**facts, "videos": held.stop},
        world=world,
        features=store.features[held].to(device),
        positions=store.positions[held].float().to(device),
    )


def _session(bank: Bank, config: PretrainConfig) -> Session:
    """The trainer's own, of which nothing is written: the run folder is made when a run begins."""
    from scalefast.training.progress import Progress
    from scalefast.training.run_folder import RunFolder
    from scalefast.training.session import Session
    from scalefast.training.state import build_task

    task = build_task(config, feature_dim=bank.feature_dim).to(bank.world.device).train()
    progress = Progress(shown=False)
    return Session(
        config=config, world=bank.world, folder=RunFolder("unused"), bank=bank, task=task, progress=progress
    )


def _next_batch(session: Session, *, rounds: int) -> Callable[[], Batch]:
    """Draws one batch after the other, views included."""
    from scalefast.training.bank import Batch, StreamedBank

    views = session.config.views
    plan = dataclasses.replace(session.plan, epochs=session.plan.epochs + rounds + 2)
    # Read ahead, a streamed batch would seem to take no time.
    source = session.bank.read if isinstance(session.bank, StreamedBank) else session.bank.batches
    steps = enumerate(source(plan, start=0, views=views))

    def draw() -> Batch:
        step, batch = next(steps)
        device = session.bank.world.device
        batch = Batch._make(None if part is None else part.to(device) for part in batch)
        rng = RandomState.create(plan.seed, step=step, rows=batch.rows)
        session.bank.sets(batch, views=views, rng=rng)
        return batch

    return draw


def _fastest(action: Callable[[], Any], *, rounds: int, device: torch.device) -> float:
    """Seconds of the fastest of `rounds` calls, after one that is not counted."""
    action()
    seconds = []
    for _ in range(rounds):
        _wait(device)
        begin = time.perf_counter()
        action()
        _wait(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
