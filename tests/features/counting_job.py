"""Decode jobs that leave traces; apart from tiny_extraction.py, so that worker processes need not import torch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from scalefast.features._decode import Decoded, DecodeJob, Item


@dataclass(frozen=True, kw_only=True)
class CountingJob(DecodeJob):
    """Writes a line to a log for every file that it opens; some files can crash or hang their worker."""

    log: str = ""

    def __call__(self, item: Item) -> Decoded:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{item[1]}\n".encode())
        os.close(descriptor)
        if "crash" in item[1]:
            os.abort()
        if "hang" in item[1]:
            time.sleep(60)
        return super().__call__(item)


@dataclass(frozen=True, kw_only=True)
class TracedJob(DecodeJob):
    """Writes its id and the number of the process that has started its own, and takes its time."""

    log: str = ""
    pause: float = 0.1

    def __call__(self, item: Item) -> Decoded:
        with open(self.log, "a") as file:
            file.write(f"{os.getppid()} {item[1]}\n")
        time.sleep(self.pause)
        return super().__call__(item)
