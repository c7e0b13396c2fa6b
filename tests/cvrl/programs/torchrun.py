"""What every process of a `torchrun` does: `torchrun.py VIDEOS LEDGER FOLDER CONFIG_JSON`; trains in FOLDER/run.

Process 0 then takes the last checkpoint away and all resume in FOLDER/resumed. Without a ledger they refuse.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from scalefast.cvrl import CVRLConfig, train_cvrl
from scalefast.errors import ScalefastError
from scalefast.training.distributed import join_world
from scalefast.video import VideoList


def main(videos: VideoList, ledger: Path, folder: Path, config: CVRLConfig) -> None:
    torch.set_num_threads(1)
    world = join_world("cpu")
    options = {"config": config, "workers": 1, "progress": False, "device": "cpu"}
    train_cvrl(videos, out=folder / "run", ledger=ledger, **options)
    if world.is_main:
        shutil.copytree(folder / "run", folder / "resumed")
        for name in ("model.safetensors", "config.json", "checkpoints/step-00000006.safetensors"):
            (folder / "resumed" / name).unlink()
    dist.barrier()
    resumed = train_cvrl(videos, out=folder / "resumed", resume=True, **options)
    assert resumed.resumed_from == 4 and resumed.is_main == world.is_main
    try:
        train_cvrl(videos, out=folder / "refused", **options)
    except ScalefastError as error:
        (folder / f"refusal-{world.rank}.txt").write_text(str(error))


main(
    VideoList.read(sys.argv[1]),
    Path(sys.argv[2]),
    Path(sys.argv[3]),
    CVRLConfig.from_dict(json.loads(sys.argv[4])),
)
