"""What a run writes down while it trains: `log.jsonl`, `speed.jsonl` and TensorBoard's event files.

`log.jsonl` is reproducible to the bit: it holds losses, accuracies and learning rate, and no time. How long
things took stands in `speed.jsonl`. Both have one JSON object a line, with `step` = completed steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scalefast.errors import MissingExtraError, require
from scalefast.training.checkpoint import disk_errors

__all__ = ["LOG_NAME", "SPEED_NAME", "TENSORBOARD_NAME", "RunLog", "read_log"]

LOG_NAME, SPEED_NAME, TENSORBOARD_NAME = "log.jsonl", "speed.jsonl", "tensorboard"


class RunLog:
    """Writes the logs of a run; a context manager that closes them.

    Lines beyond `step`, left by a run that went further than its checkpoint, are cut off, and TensorBoard is
    told to forget them, so that a resumed run continues its curves.

    Args:
        folder: the run folder.
        step: completed steps from which the run goes on; 0 for a new run.
        say: is told, once, when TensorBoard is not installed or cannot write.
    """

    def __init__(self, folder: Path, *, step: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._files = {}
        for name in (LOG_NAME, SPEED_NAME):
            path = folder / name
            with disk_errors(path, advice="Make room and resume."):
                _cut_after(path, step)
                self._files[path] = path.open("ab")
        self._board = _open_tensorboard(folder / TENSORBOARD_NAME, step=step, say=say)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._on_board(lambda board: board.close())

    def write(self, step: int, *, record: Mapping[str, Any], speed: Mapping[str, Any]) -> None:
        """One line in each file, and a point on every curve.

        Raises:
            TrainingError: the disk refuses.
        """
        for (path, file), values in zip(self._files.items(), (record, speed), strict=True):
            with disk_errors(path, advice="Make room and resume."):
                file.write((json.dumps({"step": step, **values}) + "\n").encode())
                file.flush()

        def draw(board: Any) -> None:
            for name, value in {**record, **speed}.items():
                board.add_scalar(f"pretrain/{name}", value, step)

        self._on_board(draw)

    def sync(self) -> None:
        """Have everything on the disk: called before a checkpoint, which relies on the lines before it."""
        for path, file in self._files.items():
            with disk_errors(path, advice="Make room and resume."):
                os.fsync(file.fileno())
        self._on_board(lambda board: board.flush())

    def _on_board(self, action: Callable[[Any], None]) -> None:
        if self._board is None:
            return
        try:
            action(self._board)
        except OSError as error:  # the curves are a convenience: the run and log.jsonl go on without them
            self._say(f"TensorBoard's files cannot be written any more ({error}); {LOG_NAME} goes on")
            self._board = None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def _cut_after(path: Path, step: int) -> None:
    """Cut a JSONL file before its first line that is beyond `step` or not whole."""
    if not path.exists():
        return
    keep = 0
    content = path.read_bytes()
    for line in content.splitlines(keepends=True):
        try:
            whole = line.endswith(b"\n") and json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            break
        keep += len(line)
    if keep < len(content):
        os.truncate(path, keep)


def _open_tensorboard(folder: Path, *, step: int, say: Callable[[str], None]) -> Any | None:
    try:
        require("tensorboard", extra="report", needed_for="writing TensorBoard files")
    except MissingExtraError as error:
        say(f"curves go to {LOG_NAME} only: {error}")
        return None
    from torch.utils.tensorboard import SummaryWriter

    with disk_errors(folder, advice="Make room and resume."):
        return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
