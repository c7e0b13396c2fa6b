"""Resume checkpoints: written whole or not at all, checked when read, the last two kept.

A checkpoint is one safetensors file, `checkpoints/step-<completed steps>.safetensors`. Its metadata hold one
entry, a JSON object of `state` (all that is no tensor) and `sha256`: a digest of that state and of every
tensor's name, dtype, shape and bytes, since safetensors itself checks nothing. One entry, because safetensors
writes several in random order, and a checkpoint is to be the same bytes every time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scalefast._files import sync_folder, write_atomically
from scalefast.errors import DataError, TrainingError
from scalefast.training._bytes import tensor_bytes

__all__ = ["KEEP", "Checkpoint", "Checkpoints", "disk_errors"]

KEEP = 2
"""Checkpoints that are kept: one to resume from, and one in case that is damaged."""

_PREFIX, _SUFFIX = "step-", ".safetensors"
_ENTRY = "scalefast_checkpoint"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds."""

    path: Path
    """Its file."""

    step: int
    """Completed steps."""

    tensors: dict[str, Tensor]
    """Weights and optimiser state, on the CPU."""

    state: dict[str, Any]
    """The rest, as plain JSON values."""


class Checkpoints:
    """The checkpoints in one folder, which is made when the first is saved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Files of all checkpoints, newest first; whether they are intact shows when they are read."""
        found = [path for path in self.folder.glob(f"{_PREFIX}*{_SUFFIX}") if _step_of(path) is not None]
        return sorted(found, key=lambda path: _step_of(path) or 0, reverse=True)

    def save(self, *, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write the state after `step` completed steps, then drop all but the last `KEEP`.

        Raises:
            TrainingError: it cannot be written (a full disk, say); earlier checkpoints are untouched.
        """
        from safetensors.torch import save

        path = self.folder / f"{_PREFIX}{step:08d}{_SUFFIX}"
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        whole = {"step": step, **state}
        sealed = {"state": whole, "sha256": _digest(whole, plain)}
        content = save(plain, metadata={_ENTRY: json.dumps(sealed, allow_nan=False)})
        with disk_errors(path, advice=self._advice()):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            sync_folder(self.folder)  # the new name is on the disk before an old file goes
        for old in self.paths()[KEEP:]:
            old.unlink(missing_ok=True)
        return path

    def load_newest(self, say: Callable[[str], None]) -> Checkpoint | None:
        """The newest intact checkpoint, or None if there are none; damaged ones passed over are said.

        Raises:
            TrainingError: there are checkpoints, and all are damaged.
        """
        damaged = []
        for path in self.paths():
            try:
                checkpoint = read_checkpoint(path)
            except DataError as error:
                damaged.append(str(error))
                continue
            for reason in damaged:
                say(f"{reason}; going on from {path.name} instead")
            return checkpoint
        if damaged:
            raise TrainingError(
                f"no intact checkpoint to resume from: {'; '.join(damaged)}; start anew with overwrite"
            )
        return None

    def last_good(self) -> str:
        """Where a user can go on from, in words."""
        return next((str(path) for path in self.paths()), "none was saved yet")

    def _advice(self) -> str:
        return f"Make room and resume; last good checkpoint: {self.last_good()}"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check it whole.

    Raises:
        DataError: the file is damaged or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            sealed = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state, expected = sealed["state"], sealed["sha256"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"checkpoint {path} is damaged ({error})") from error
    if _digest(state, tensors) != expected:
        raise DataError(f"checkpoint {path} is damaged (its checksum does not match)")
    return Checkpoint(path=path, step=state.pop("step"), tensors=tensors, state=state)


@contextlib.contextmanager
def disk_errors(path: Path, *, advice: str) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into a `TrainingError` that says what to do.

    Advice to make room is for a disk that is full; where writing is not allowed, it is to allow it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            advice = advice.replace("Make room", "Make it writable", 1)
        raise TrainingError(f"{path} cannot be written ({error.strerror or error}). {advice}") from error


def _step_of(path: Path) -> int | None:
    digits = path.name[len(_PREFIX) : -len(_SUFFIX)]
    return int(digits) if digits.isdecimal() else None


def _digest(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
