"""Start runs that are killed with SIGKILL at chosen moments: `killed.py STORE FOLDER CONFIG_JSON`.

One run for every moment in `MOMENTS`, in `FOLDER/<moment>`, each a process of its own, forked before anything
has computed, so that torch is imported once. Prints the moments at which the run really died of the signal.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scalefast import hub, kernels
from scalefast.model import SCALE
from scalefast.training import PretrainConfig, logs, pretrain


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner: Any, name: str, number: int, *, after: bool = False) -> None:
    """Die at the 1-based call of `owner.name`, before it does anything or after it has done it."""
    real, calls = getattr(owner, name), iter(range(1, 10_000))

    def wrapped(*args: Any, **options: Any) -> Any:
        last = next(calls) == number
        if last and not after:
            die()
        result = real(*args, **options)
        if last:
            die()
        return result

    setattr(owner, name, wrapped)


def in_the_middle_of_a_checkpoint(number: int) -> None:
    """Die when half of the checkpoint's bytes are in the temporary file and pushed to the disk."""
    real, calls = hub.write_atomically, iter(range(1, 10_000))

    def wrapped(path: Path, content: bytes) -> None:
        if "step-" in path.name and next(calls) == number:
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(content[: len(content) // 2])
            die()
        real(path, content)

    from scalefast.training import checkpoint

    checkpoint.write_atomically = wrapped


def in_the_middle_of_a_line(number: int) -> None:
    """Die when half a line is in log.jsonl."""
    real, calls = logs.RunLog.write, iter(range(1, 10_000))

    def wrapped(self: logs.RunLog, step: int, **options: Any) -> None:
        if next(calls) == number:
            file = next(iter(self._files.values()))
            file.write(b'{"step": 10, "epo')
            file.flush()
            die()
        real(self, step, **options)

    logs.RunLog.write = wrapped  # type: ignore[method-assign]


# Checkpoints follow steps 4, 8 and 12 of 12; lines of the log steps 5, 10 and 12.
MOMENTS: dict[str, Callable[[], None]] = {
    "before_the_record": lambda: at_call(hub, "write_atomically", 1),
    "step_1": lambda: at_call(kernels, "sample_views", 1),
    "step_4": lambda: at_call(kernels, "sample_views", 4),
    "step_5": lambda: at_call(kernels, "sample_views", 5),
    "step_7": lambda: at_call(kernels, "sample_views", 7),
    "step_12": lambda: at_call(kernels, "sample_views", 12),
    "first_checkpoint": lambda: in_the_middle_of_a_checkpoint(1),
    "second_checkpoint": lambda: in_the_middle_of_a_checkpoint(2),
    "line": lambda: in_the_middle_of_a_line(2),
    "before_the_model": lambda: at_call(SCALE, "save_pretrained", 1),
    "after_the_model": lambda: at_call(SCALE, "save_pretrained", 1, after=True),
}


def run_until_killed(moment: str, store: str, out: Path, config: PretrainConfig) -> None:
    """In a child: train until the signal comes; exit 1 if it does not."""
    MOMENTS[moment]()
    if moment == "before_the_record":
        from scalefast.training import run_folder

        run_folder.write_atomically = hub.write_atomically
    pretrain(store, out=out, config=config, progress=False)
    os._exit(1)


def main(store: str, folder: str, config: str) -> None:
    for needed in ("torch.utils.tensorboard", "torch._dynamo"):  # for all children, once
        importlib.import_module(needed)
    torch.set_num_threads(1)
    for moment in MOMENTS:
        child = os.fork()
        if child == 0:
            run_until_killed(moment, store, Path(folder) / moment, PretrainConfig.from_json(config))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            print(moment, flush=True)


main(*sys.argv[1:])
