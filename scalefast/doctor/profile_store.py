"""Timing the training part of a run: drawing batches from the bank, and steps of the trainer on them.

Shapes: `N` videos, `C` clips a video, `D` feature.
"""

from __future__ import annotations

import dataclasses
import statistics
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

_SECONDS = 5.0
"""For which draws, and then steps, are timed."""

_STARTED = 100
"""Completed steps of the run whose next ones are timed: its first may be computed in another way, and are few."""

_LEAST_CALLS, _MOST_CALLS = 4, 40
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
    path: str | Path, *, config: PretrainConfig, device: torch.device, seconds: float = _SECONDS
) -> Profile:
    """What a run of this configuration on a store spends its time on; nothing is written.

    Raises:
        InputError, DataError: the store cannot be trained on.
    """
    from scalefast.features import FeatureStore
    from scalefast.training.bank.contents import check_sets

    store = FeatureStore.open(path)
    check_sets(store, views=config.views)
    measured = time_training(store, config=config, device=device, seconds=seconds)
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
    store: FeatureStore, *, config: PretrainConfig, device: torch.device, seconds: float = _SECONDS
) -> Training:
    """Draw batches and take steps as a run on this store would, each for about so many seconds."""
    from scalefast.training.bank import ResidentBank
    from scalefast.training.memory import keep_freed_memory
    from scalefast.training.step import Step
    from scalefast.training.trainer import resolved

    if device.type == "cpu":
        keep_freed_memory()  # as a run has it; without it fp32 steps of 64 videos took 271 ms, not 189 (2026-11-21)
    config = resolved(config, device=device)
    bank = _bank(store, device=device)
    session = _session(bank, config)
    session.start = _STARTED
    draw, take = _next_batch(session), Step(session)
    batch, rate = draw(), config.learning_rate
    drawing = _usual(draw, seconds=seconds, device=device)
    whole = _usual(lambda: take(batch, learning_rate=rate), seconds=seconds, device=device)
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
    from scalefast.features._stamps import Stamps
    from scalefast.training.bank import ResidentBank, StreamedBank
    from scalefast.training.bank.placing import place
    from scalefast.training.distributed import World

    videos, clips, width = store.features.shape
    world = World(rank=0, size=1, device=device)
    nbytes = store.features.nbytes + 4 * store.positions.shape.numel()
    facts = {"videos": videos, "clips": clips, "feature_dim": width}
    if place("auto", nbytes=nbytes, limit_gib=None, device=device, neighbours=1).streamed:
        return StreamedBank(facts=facts, world=world, store=store, stamps=Stamps(store))
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


def _next_batch(session: Session) -> Callable[[], Batch]:
    """Draws one batch after the other, views included."""
    from scalefast.training.bank import Batch, StreamedBank

    views = session.config.views
    plan = dataclasses.replace(session.plan, epochs=session.plan.epochs + _MOST_CALLS + 1)
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


def _usual(action: Callable[[], Any], *, seconds: float, device: torch.device) -> float:
    """Seconds of a call: the median, once the first of them have set up what later ones find."""
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < _LEAST_CALLS or (len(taken) < _MOST_CALLS and time.perf_counter() - begin < seconds):
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[len(taken) // 2 :])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
