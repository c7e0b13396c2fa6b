"""Pretraining, from a feature store to a run folder: what happens, in the order in which it happens."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scalefast._precision import precision_name, resolve_precision
from scalefast.calibration import calibrate, scale_inputs
from scalefast.errors import InputError
from scalefast.training.bank import BankSource, Residence, load_bank
from scalefast.training.config import PretrainConfig
from scalefast.training.distributed import join_world
from scalefast.training.logs import LOG_NAME, read_log
from scalefast.training.memory import keep_freed_memory
from scalefast.training.metrics import METRICS
from scalefast.training.progress import Progress
from scalefast.training.run_folder import RunFolder, build_record, read_record
from scalefast.training.schedule import learning_rate_at
from scalefast.training.session import Session
from scalefast.training.state import build_task
from scalefast.training.step import Step

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["RunResult", "pretrain"]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What `pretrain` leaves behind."""

    folder: Path
    """The run folder; `SCALE.from_pretrained` and `load_run` take it."""

    steps: int
    """Completed steps, over all sessions of the run."""

    resumed_from: int
    """Completed steps when this session began; 0 for a run from its beginning."""

    losses: dict[str, float]
    """Losses and accuracies in the last line of the log (`scalefast.training.metrics.METRICS`)."""

    is_main: bool
    """Whether this process is the only or the first of the run: the one to print results."""

    notes: tuple[str, ...]
    """What was not as one might expect: videos that an epoch leaves out, a damaged checkpoint passed
    over, ..."""


def pretrain(
    store: FeatureStore | BankSource | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    config: PretrainConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    bank: Residence = "auto",
    bank_memory: float | None = None,
    progress: bool = True,
) -> RunResult:
    """Train SCALE on the features of a store, without labels.

    Under `torchrun`, every process calls this and takes its part of each batch; the result is that of one
    process.

    Args:
        store: a feature store or its folder, or `scalefast.online.OnlineVideos`.
        out: the run folder, made if need be.
        config: what to do; None takes the paper's values, or those of the run that is resumed.
        resume: go on with the run in `out` from its last checkpoint, bit for bit as if it had not stopped;
            where there is no run yet, one is begun.
        overwrite: replace the run in `out`.
        device: where to train; None takes the GPU of this process if there is one, else the CPU.
        bank: where the features lie during the run: in the memory of `device` ("resident"; of several processes each
            holds its part of the videos), on the disk ("stream"), or in memory if they fit ("auto"). Results are the
            same to the bit.
        bank_memory: GiB that the features may take in the memory of one process; None: 60% of what is free.
        progress: whether to show a bar (on a terminal) or lines (elsewhere); process 0 alone does.

    Raises:
        InputError: a folder that holds a run, a run of another configuration or store, a store that does not
        fit.
        TrainingError: the loss became NaN or infinite, or a file cannot be written; both name the last
        checkpoint.
    """
    folder, world = RunFolder(out), join_world(device)
    with contextlib.ExitStack() as held:
        shown = Progress(shown=progress and world.is_main)
        held.callback(shown.close)
        resuming = world.on_main(lambda: folder.admit(resume=resume, overwrite=overwrite))
        world.on_main(lambda: held.enter_context(folder.locked()))
        if config is None:
            config = (
                PretrainConfig.from_dict(read_record(folder.path)["config"]) if resuming else PretrainConfig()
            )
        config = resolved(config, device=world.device)
        fitted = _fitted_to(store, config)
        if world.device.type == "cpu":
            keep_freed_memory()

        if isinstance(store, BankSource):
            if bank != "auto" or bank_memory is not None:
                raise InputError(
                    "bank and bank_memory say where a store's features lie; videos have none yet"
                )
            loaded = store.open_bank(config=config, world=world, folder=folder.path, say=shown.say)
        else:
            loaded = load_bank(
                store,
                views=config.views,
                world=world,
                residence=bank,
                memory_gib=bank_memory,
                say=shown.say,
            )
        task = build_task(config, feature_dim=loaded.feature_dim).to(world.device)
        if fitted is not None:
            scale_inputs(task.model, fitted)
        session = Session(config=config, world=world, folder=folder, bank=loaded, task=task, progress=shown)
        record = build_record(config, store=loaded.facts, model=task.model.config())
        world.on_main(lambda: folder.begin(record, resuming=resuming))
        if resuming:
            session.resume()
        session.begin(held)
        train(session)
        if fitted is not None:
            world.on_main(lambda: calibrate(task.model, fitted))
        world.on_main(session.finish)
        last = world.on_main(lambda: (read_log(folder.path / LOG_NAME) or [{}])[-1])
    return RunResult(
        folder=folder.path,
        steps=session.plan.total_steps,
        resumed_from=session.start,
        losses={name: last[name] for name in METRICS if name in last},
        is_main=world.is_main,
        notes=tuple(shown.notes),
    )


def _fitted_to(
    store: FeatureStore | BankSource | str | os.PathLike[str], config: PretrainConfig
) -> FeatureStore | str | os.PathLike[str] | None:
    """The store that a calibrated model is fitted to; None where there is nothing to fit.

    Raises:
        InputError: there is no store, features are made while training.
    """
    if not config.calibrated:
        return None
    if isinstance(store, BankSource):
        raise InputError(
            "calibrated=True is fitted to a feature store, and there is none; set calibrated=False"
        )
    return store


def train(session: Session) -> None:
    """The loop: every step from where the session begins to the end of the run."""
    config, plan = session.config, session.plan
    take = Step(session)
    session.task.train()
    with contextlib.closing(session.bank.batches(plan, start=session.start, views=config.views)) as batches:
        for step, batch in enumerate(batches, session.start):
            learning_rate = learning_rate_at(
                step,
                total_steps=plan.total_steps,
                peak=config.learning_rate,
                warmup_fraction=config.warmup_fraction,
            )
            session.meter.add(take(batch, learning_rate=learning_rate))

            done = step + 1
            if session.reports(done):
                session.report(done, learning_rate=learning_rate)
            if session.saves(done):
                session.save(done)


def resolved(config: PretrainConfig, *, device: torch.device) -> PretrainConfig:
    """The configuration with "auto" replaced by the precision that it means on `device`."""
    if config.precision != "auto":
        return config
    return config.replace(precision=precision_name(resolve_precision(None, device=device)))
