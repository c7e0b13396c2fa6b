"""A tiny backbone, and an extraction to kill: `python tiny_extraction.py VIDEOS OUT LOG`. Not a test."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from counting_job import CountingJob

from scalefast.features import _job, extraction
from scalefast.video import ClipRecipe, VideoList, train_recipe


class TinyBackbone:
    """Means of the pixels through a fixed matrix; the last number is the size of the clip's batch."""

    name = "tiny"
    feature_dim = 6
    num_frames = 4
    stride = 2
    size = 16
    device = torch.device("cpu")

    def __init__(self, *, seed: int = 0, pause: float = 0.0) -> None:
        self.pause = pause
        self.weights = torch.randn(4 * 3, 5, generator=torch.Generator().manual_seed(seed))
        self.weights_hash = hashlib.sha256(self.weights.numpy().tobytes()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a store records."""
        return {"name": self.name, "weights_hash": self.weights_hash, "size": self.size}

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        assert clips.dtype == torch.uint8 and clips.shape[1:] == (4, self.size, self.size, 3)
        time.sleep(self.pause)
        means = clips.float().mean(dim=(2, 3)).flatten(1) / 255
        return torch.cat([means @ self.weights, torch.full((len(clips), 1), float(len(clips)))], dim=1)


def recipe(**changes: Any) -> ClipRecipe:
    """Three random clips of 4 frames of 16 x 16."""
    return dataclasses.replace(train_recipe(num_frames=4, stride=2, size=16, clips=3), **changes)


def extract(
    folder: Path, out: Path, log: Path | None, *, videos: VideoList | None = None, **changes: Any
) -> extraction.ExtractSummary:
    """Extract a folder of videos, 3 listed videos a shard, 4 clips a batch, writing decoded ids to `log`.

    The log takes a patch that holds for the process: without one in tests that extract in several threads.
    """
    arguments: dict[str, Any] = {
        "backbone": TinyBackbone(),
        "recipe": recipe(),
        "batch_clips": 4,
        "shard_videos": 3,
        "workers": 2,
        "progress": False,
        **changes,
    }
    job = functools.partial(CountingJob, log=str(log))
    with mock.patch.object(_job, "DecodeJob", job) if log is not None else contextlib.nullcontext():
        return extraction.extract(VideoList.read(folder) if videos is None else videos, out=out, **arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks = {"rank": int(os.environ.get("RANK", "0")), "world_size": int(os.environ.get("WORLD_SIZE", "1"))}
    extract(*(Path(word) for word in sys.argv[1:4]), backbone=TinyBackbone(pause=0.05), **ranks)
