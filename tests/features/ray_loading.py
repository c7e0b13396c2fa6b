"""What backbone actors load in the tests of Ray; importable by them. Not a test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from counting_job import TracedJob
from tiny_extraction import TinyBackbone

from scalefast.errors import InputError
from scalefast.features import _job


@dataclass(frozen=True)
class TracedLoad:
    """Loads the tiny backbone, and notes the process that did; that process's decoders note theirs."""

    folder: str
    pause: float = 0.0

    def __call__(self, device: str) -> Any:
        assert device == "cpu"
        Path(self.folder, f"backbone-{os.getpid()}").touch()
        setattr(_job, "DecodeJob", partial(TracedJob, log=str(Path(self.folder, "decoders"))))  # noqa: B010
        return TinyBackbone(pause=self.pause)


def refuse(device: str) -> Any:
    """A backbone that there is not."""
    raise InputError("there is no backbone 'nosuch'")
