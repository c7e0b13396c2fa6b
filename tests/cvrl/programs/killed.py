"""Start CVRL runs that are killed with SIGKILL at chosen moments: `killed.py VIDEOS FOLDER CONFIG_JSON`.

One run for every moment, in `FOLDER/<moment>`, each a process of its own, forked before anything has computed. Prints
the moments at which the run really died of the signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # for all children, once

from scalefast.cvrl import CVRLConfig, _launch, _run, train_cvrl, trainer
from scalefast.training import checkpoint
from scalefast.video import VideoList


def at_call(owner: Any, name: str, number: int, *, after: bool = False) -> None:
    """Die at the 1-based call of `owner.name`, before it does anything or after it has done it."""
    real, calls = getattr(owner, name), iter(range(1, 1000))

    def wrapped(*args: Any, **options: Any) -> Any:
        last = next(calls) == number
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def in_the_middle_of_a_checkpoint() -> None:
    """Die when half of the second checkpoint's bytes are in its temporary file."""
    real, calls = checkpoint.write_atomically, iter(range(1, 1000))

    def wrapped(path: Path, content: bytes) -> None:
        if next(calls) == 2:
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, content)

    checkpoint.write_atomically = wrapped


# Checkpoints follow steps 2, 4 and 6 of 6.
MOMENTS = {
    "scan": lambda: at_call(_launch, "usable_videos", 1),
    "step_4": lambda: at_call(_run, "take_step", 4, after=True),
    "checkpoint": in_the_middle_of_a_checkpoint,
    "before_the_backbone": lambda: at_call(trainer, "write_backbone", 1),
    "after_the_backbone": lambda: at_call(trainer, "write_backbone", 1, after=True),
}


def main(videos: str, folder: Path, config: CVRLConfig) -> None:
    torch.set_num_threads(1)
    for moment, arrange in MOMENTS.items():
        child = os.fork()
        if child == 0:
            arrange()
            train_cvrl(VideoList.read(videos), out=folder / moment, config=config, workers=1, progress=False)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            print(moment, flush=True)


main(sys.argv[1], Path(sys.argv[2]), CVRLConfig.from_dict(json.loads(sys.argv[3])))
