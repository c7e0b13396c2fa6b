"""What every run over clips does around its training: the folder, the lock, the ledger, going on, the result."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn

from scalefast._precision import precision_name, resolve_precision
from scalefast._version import __version__
from scalefast.cvrl._decode import PairPlan, RandomPlan
from scalefast.cvrl._ledger import usable_videos
from scalefast.cvrl._run import ClipRun, ClipTask
from scalefast.cvrl.config import ClipTraining
from scalefast.training.checkpoint import disk_errors
from scalefast.training.distributed import World
from scalefast.training.memory import keep_freed_memory
from scalefast.training.run_folder import RunFolder
from scalefast.video import VideoEntry, VideoList

__all__ = ["ClipRunResult", "RunOptions", "launch", "resolved", "spread"]


@dataclass(frozen=True, kw_only=True)
class ClipRunResult:
    """What a run over clips leaves behind."""

    folder: Path
    """The run folder, which is a backbone folder: `load_backbone` and `scalefast extract --backbone` take it."""
    steps: int
    """Completed steps, over all sessions of the run."""
    resumed_from: int
    """Completed steps when this session began."""
    losses: dict[str, float]
    """`loss` and `accuracy` in the last line of the log."""
    is_main: bool
    """Whether this process is the only or the first of the run."""
    notes: tuple[str, ...]
    """What was said: videos left out, a damaged checkpoint passed over, progress."""


class RunOptions(TypedDict, total=False):
    """What every run over clips takes beside its videos, its folder and what it trains."""

    ledger: str | os.PathLike[str] | None
    """What `scalefast scan` wrote for this list; None: the list is scanned first (one process only). Videos that are
    bad or missing are left out and counted."""
    resume: bool
    """Go on with the run in the folder, bit for bit as if it had not stopped; where there is none, begin one."""
    overwrite: bool
    """Replace the run in the folder."""
    workers: int | None
    """Processes that decode; None: one for each CPU. Changes no bit."""
    progress: bool
    """Whether to print lines, in process 0 alone; True if not given."""


def launch(
    videos: VideoList,
    *,
    out: str | os.PathLike[str],
    world: World,
    label: str,
    config: Mapping[str, Any],
    training: ClipTraining,
    clips: PairPlan | RandomPlan,
    build: Callable[[list[VideoEntry]], ClipTask],
    finish: Callable[[Any, list[VideoEntry], Path], None],
    facts: Mapping[str, Any] | None = None,
    ledger: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> ClipRunResult:
    """Train, or go on training; the errors are those that `train_cvrl` states.

    Args:
        videos: the list.
        out: the run folder.
        world: the processes that take part.
        label: what is being done, in a word.
        config: recorded, and compared when resuming.
        training: with "auto" resolved.
        clips: which clips of a video a step takes.
        build: from the videos that decode to what is trained, on its device.
        finish: writes the result into the folder, in process 0.
        facts: more that is recorded beside the list, and compared when resuming.
        ledger, resume, overwrite, workers, progress: see `RunOptions`.
    """
    folder, notes = RunFolder(out), list[str]()
    say = _teller(notes, shown=progress and world.is_main)
    with contextlib.ExitStack() as held:
        resuming = world.on_main(lambda: folder.admit(resume=resume, overwrite=overwrite))
        world.on_main(lambda: held.enter_context(folder.locked()))
        if world.device.type == "cpu":
            keep_freed_memory()
        record = _record(config, videos=videos, label=label, facts=facts or {})
        world.on_main(lambda: folder.begin(record, resuming=resuming))
        entries = usable_videos(
            videos,
            folder=folder.path,
            ledger=ledger,
            recipe=clips.recipe,
            resuming=resuming,
            world=world,
            workers=workers,
            say=say,
        )
        run = ClipRun(
            label=label,
            entries=entries,
            clips=clips,
            task=build(entries),
            training=training,
            world=world,
            folder=folder.path,
            say=say,
            workers=workers,
        )
        if resuming:
            run.resume()
        run.train(held)

        def write() -> None:
            with disk_errors(folder.path, advice="Make room and resume."):
                finish(run.task, entries, folder.path)

        world.on_main(write)
    return ClipRunResult(
        folder=folder.path,
        steps=run.plan.total_steps,
        resumed_from=run.start,
        losses=run.last,
        is_main=world.is_main,
        notes=tuple(notes),
    )


def resolved(training: ClipTraining, *, device: torch.device) -> ClipTraining:
    """The same with "auto" replaced by the precision that it means on `device`."""
    if training.precision != "auto":
        return training
    name = precision_name(resolve_precision(None, device=device))
    return dataclasses.replace(training, precision=name)  # type: ignore[arg-type]


def spread(module: nn.Module, world: World) -> Any:
    """On its device; over several GPUs batch normalisation sees the batch of all of them, as CVRL's does."""
    if world.size > 1 and world.device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return module.to(world.device)


def _record(
    config: Mapping[str, Any], *, videos: VideoList, label: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """run.json: the resolved configuration, the list and the versions."""
    ids = json.dumps([[entry.id, entry.label] for entry in videos]).encode("ascii")
    versions = {
        "scalefast": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    listed = {"videos": len(videos), "hash": hashlib.sha256(ids).hexdigest(), **facts}
    return {"config": dict(config), "model": {"trained_by": label}, "store": listed, "versions": versions}


def _teller(notes: list[str], *, shown: bool) -> Callable[[str], None]:
    def say(note: str) -> None:
        notes.append(note)
        if shown:
            print(note, file=sys.stderr, flush=True)

    return say
