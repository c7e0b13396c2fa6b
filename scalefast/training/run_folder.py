"""The folder of a run: what lies where, who may write into it, and what identifies the run.

    run.json                the resolved configuration, versions and what identifies the store
    log.jsonl, speed.jsonl  losses; how fast
    tensorboard/            the same as curves
    checkpoints/            the last two states to resume from
    config.json, model.safetensors        the aggregator, for SCALE.from_pretrained
    pretraining.safetensors               the whole task, heads included
    ledger.csv                            what became of each video, of runs that decode themselves

Nothing but speed.jsonl and the event files holds a time, and nothing a host name or a path: two runs of one
configuration on one store leave the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalefast._files import write_atomically
from scalefast._version import __version__
from scalefast.errors import DataError, InputError, TrainingError
from scalefast.hub import CONFIG_NAME, WEIGHTS_NAME
from scalefast.training.checkpoint import disk_errors
from scalefast.training.config import PretrainConfig
from scalefast.training.logs import LOG_NAME, SPEED_NAME, TENSORBOARD_NAME

__all__ = [
    "CHECKPOINTS_NAME",
    "LEDGER_NAME",
    "RECORD_NAME",
    "TASK_NAME",
    "RunFolder",
    "build_record",
    "read_record",
]

RECORD_NAME, CHECKPOINTS_NAME, TASK_NAME = "run.json", "checkpoints", "pretraining.safetensors"
LEDGER_NAME = "ledger.csv"

_FILES = (RECORD_NAME, LOG_NAME, SPEED_NAME, CONFIG_NAME, WEIGHTS_NAME, TASK_NAME, LEDGER_NAME)
_FOLDERS = (CHECKPOINTS_NAME, TENSORBOARD_NAME)


class RunFolder:
    """The run folder at `path`, which need not exist yet."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / CHECKPOINTS_NAME

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / RECORD_NAME).is_file()

    def admit(self, *, resume: bool, overwrite: bool) -> bool:
        """Refuse a folder that this run may not write into; returns whether there is a run to resume.

        Raises:
            InputError: it holds a run and neither `resume` nor `overwrite` is given (or both are), or it
                holds something else.
        """
        if resume and overwrite:
            raise InputError("resume and overwrite exclude each other: go on with the run, or replace it")
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; a run needs a folder")
        if self.holds_run:
            if not resume and not overwrite:
                raise InputError(
                    f"{self.path} already holds a run: resume it, overwrite it, or choose another folder"
                )
        elif self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise InputError(
                f"{self.path} is not empty and holds no run ({RECORD_NAME}); choose another folder"
            )
        return resume and self.holds_run

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing this run at the same time, where the system has such locks.

        The lock sits on the folder itself and ends with the process, so that a killed run leaves none behind. Folders
        that were made for it go again if nothing was written: a run that is refused leaves no trace.

        Raises:
            TrainingError: another process is writing here, or the folder cannot be made.
        """
        absent = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with disk_errors(self.path, advice="Choose another folder."):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            with _exclusively(self.path):
                yield
        finally:
            with contextlib.suppress(OSError):  # not empty, as it should be
                for folder in absent:
                    folder.rmdir()

    def begin(self, record: Mapping[str, Any], *, resuming: bool) -> None:
        """Make the folder ready: an old run goes and run.json is written, or it must agree.

        Raises:
            InputError: the run to resume is of another configuration or store; each differing field is named.
            TrainingError: the disk refuses.
        """
        self._sweep()
        if resuming:
            there = read_record(self.path)
            found = [*_differences("config", there, record), *_differences("store", there, record)]
            if found:
                raise InputError(f"{self.path} cannot be resumed: {'; '.join(found)}")
            return
        with disk_errors(self.path / RECORD_NAME, advice="Make room and start again."):
            self._clear()
            write_atomically(self.path / RECORD_NAME, (json.dumps(record, indent=2) + "\n").encode())

    def _clear(self) -> None:
        """Remove what a run writes, nothing else; run.json last: after a kill it is still a run."""
        for name in _FOLDERS:
            if (self.path / name).is_dir():
                shutil.rmtree(self.path / name)
        for name in reversed(_FILES):
            (self.path / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove temporary files that a killed run left."""
        for folder in (self.path, self.checkpoints):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{folder}: another process is writing this run; wait for it or stop it"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def build_record(
    config: PretrainConfig, *, store: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """What run.json holds of a run."""
    versions = {
        "scalefast": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return {"config": config.to_dict(), "model": dict(model), "store": dict(store), "versions": versions}


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a run folder.

    Raises:
        InputError: no run here. DataError: not readable.
    """
    path = folder / RECORD_NAME
    if not path.is_file():
        raise InputError(f"{folder} is not a run folder: it has no {RECORD_NAME}")
    try:
        record = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(record, dict) or not {"config", "model", "store", "versions"} <= record.keys():
        raise DataError(f"{path}: expected an object with config, model, store and versions")
    return record


def _differences(part: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each field of `part` that is not the same, fields of its own objects by their own names."""
    for name in [*now[part], *(name for name in there[part] if name not in now[part])]:
        old, new = there[part].get(name), now[part].get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{part}.{told}" for told in _differences(name, there[part], now[part]))
        elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
            yield f"{part}.{name} was {old!r} and is now {new!r}"
