"""Several runs of one shape trained at once, each into the run folder that it would have alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scalefast.calibration import calibrate, scale_inputs
from scalefast.errors import DivergedError, InputError
from scalefast.pretraining import PretrainingLosses
from scalefast.training.bank import Bank, load_bank
from scalefast.training.batched.shapes import shape_of, stackable
from scalefast.training.batched.step import StackedStep
from scalefast.training.config import PretrainConfig
from scalefast.training.distributed import World, join_world
from scalefast.training.memory import keep_freed_memory
from scalefast.training.progress import Progress
from scalefast.training.run_folder import RunFolder, build_record
from scalefast.training.schedule import learning_rate_at
from scalefast.training.session import Session
from scalefast.training.state import build_task
from scalefast.training.trainer import resolved

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["pretrain_together"]

Failures = dict[Path, DivergedError]


def pretrain_together(
    store: FeatureStore,
    *,
    runs: Mapping[Path, PretrainConfig],
    resume: bool = False,
    device: str | torch.device | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Failures:
    """`pretrain(store, out=folder, config=config)` for each of several runs, in one batched run.

    Each model sees the batches, views, masks and dropout that it would see alone, and its weights follow those of the
    run alone to within rounding: products of stacked matrices sum in another order.

    Args:
        store: what all train on.
        runs: run folder and configuration of each; they may differ in `VARYING` alone.
        resume: go on where each folder's last checkpoint is; a folder without a run begins one.
        device: where to train.
        say: is told what is not as one might expect.

    Returns:
        The runs that came to nothing because a loss or a weight was not finite, and why; the others went on.

    Raises:
        InputError: configurations that cannot be trained at once, several processes, or as `pretrain`.
        TrainingError: as `pretrain`, but for losses that are not finite.
    """
    world = join_world(device)
    configs = {folder: resolved(config, device=world.device) for folder, config in runs.items()}
    _check(list(configs.values()), world)
    if world.device.type == "cpu":
        keep_freed_memory()
    failed: Failures = {}
    with contextlib.ExitStack() as held:
        bank = load_bank(store, views=next(iter(configs.values())).views, world=world, say=say)
        sessions = [
            _open(store, RunFolder(folder), config, bank=bank, world=world, resume=resume, held=held)
            for folder, config in configs.items()
        ]
        sessions.sort(key=lambda one: (one.start, one.config.seed, one.config.dropout))
        # Killed between two of their checkpoints, runs go on from different steps.
        for start in sorted({session.start for session in sessions}):
            failed |= _train([session for session in sessions if session.start == start], say=say)
        for session in sessions:
            if session.folder.path not in failed:
                if session.config.calibrated:
                    calibrate(session.task.model, store)
                session.finish()
    return failed


def _check(configs: Sequence[PretrainConfig], world: World) -> None:
    if world.size > 1:
        raise InputError(f"several runs at once train in one process; there are {world.size}")
    if not configs or len({shape_of(config) for config in configs}) > 1 or not stackable(configs[0]):
        raise InputError(
            "runs that are trained at once may differ in what decides no shape alone, and their target is not 'ema'"
        )


def _open(
    store: FeatureStore,
    folder: RunFolder,
    config: PretrainConfig,
    *,
    bank: Bank,
    world: World,
    resume: bool,
    held: contextlib.ExitStack,
) -> Session:
    """A session as `pretrain` begins it."""
    resuming = folder.admit(resume=resume, overwrite=False)
    held.enter_context(folder.locked())
    task = build_task(config, feature_dim=bank.feature_dim).to(world.device)
    if config.calibrated:
        scale_inputs(task.model, store)
    progress = Progress(shown=False)
    session = Session(config=config, world=world, folder=folder, bank=bank, task=task, progress=progress)
    record = build_record(config, store=bank.facts, model=task.model.config())
    folder.begin(record, resuming=resuming)
    if resuming:
        session.resume()
    session.begin(held)
    return session


def _train(sessions: Sequence[Session], *, say: Callable[[str], None]) -> Failures:
    """All steps of runs of one shape that stand at one step; returns those that diverged."""
    take, failed = StackedStep(sessions, say=say), Failures()
    for session in sessions:
        session.task.train()
    with contextlib.ExitStack() as open_banks:
        batches = [
            open_banks.enter_context(
                contextlib.closing(one.bank.batches(one.plan, start=one.start, views=one.config.views))
            )
            for one in take.plans()
        ]
        for step, batch in enumerate(zip(*batches, strict=True), sessions[0].start):
            rates = [_rate(session, step) for session in sessions]
            losses = take(batch, rates=rates)
            for session, own in zip(sessions, _by_model(losses), strict=True):
                session.meter.add(own)
            done = step + 1
            if sessions[0].reports(done):
                for session, rate in zip(sessions, rates, strict=True):
                    with _noting(session, failed):
                        session.report(done, learning_rate=rate)
            if sessions[0].saves(done):
                take.weights.publish()
                for session in sessions:
                    with _noting(session, failed):
                        session.save(done)
    return failed


@contextlib.contextmanager
def _noting(session: Session, failed: Failures) -> Iterator[None]:
    """Keeps why a run came to nothing, at the first sign of it. Its model stays in the stack and disturbs no other."""
    try:
        yield
    except DivergedError as error:
        failed.setdefault(session.folder.path, error)


def _rate(session: Session, step: int) -> float:
    config = session.config
    return learning_rate_at(
        step,
        total_steps=session.plan.total_steps,
        peak=config.learning_rate,
        warmup_fraction=config.warmup_fraction,
    )


def _by_model(losses: Tensor) -> Iterator[PretrainingLosses]:
    """[8, G] -> the losses of each model."""
    for own in losses.clone().unbind(1):
        yield PretrainingLosses(*own.unbind())
