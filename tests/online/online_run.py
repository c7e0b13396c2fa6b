"""A run to kill, or to start as ranks: `python online_run.py VIDEOS OUT KEEP PAUSE`. Not a test."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "features"))
from tiny_extraction import TinyBackbone, recipe

from scalefast.online import OnlineVideos
from scalefast.training import PretrainConfig, pretrain
from scalefast.video import VideoList

if __name__ == "__main__":
    videos, out, keep, pause = sys.argv[1:5]
    torch.set_num_threads(1)
    config = PretrainConfig(
        epochs=3, batch_size=5, views=2, hidden_dim=32, projection_dim=16, head_dim=32, target_dim=32, precision="fp32",
        log_every=1, checkpoint_every=1, seed=4,
    )  # fmt: skip
    source = OnlineVideos(
        videos=VideoList.read(videos), backbone=TinyBackbone(pause=float(pause)), recipe=recipe(clips=4), batch_clips=4,
        workers=1, keep=keep or None,
    )  # fmt: skip
    pretrain(source, out=out, config=config, resume=True, device="cpu", progress=False)
