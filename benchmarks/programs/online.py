"""Pretraining straight from videos beside the two-stage way: extract once, then train on the store.

`python benchmarks/programs/online.py [--videos N] [--epochs N] [--backbone NAME]` renders 10 s videos and runs, one
after the other: `two stages` (extract, then pretrain), `online, kept` (one command, a store is filled in the first
epoch) and `online, fresh` (one command, new clips in every epoch). The first two train on the same number of clips; the
third decodes as often as there are epochs, and its clips are all different.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from extraction import make_job, render_videos

from scalefast.features import extract
from scalefast.features._job import Extraction
from scalefast.online import OnlineVideos
from scalefast.training import PretrainConfig, RunResult, pretrain


def ways(job: Extraction, folder: Path, config: PretrainConfig) -> dict[str, Callable[[], RunResult]]:
    """Name -> what runs."""

    def online(name: str, *, keep: Path | None) -> RunResult:
        source = OnlineVideos(videos=job.videos, backbone=job.backbone, recipe=job.recipe, keep=keep)
        return pretrain(source, out=folder / name, config=config, progress=False)

    def two_stages() -> RunResult:
        extract(job.videos, backbone=job.backbone, recipe=job.recipe, out=folder / "store", progress=False)
        return pretrain(folder / "store", out=folder / "run", config=config, progress=False)

    return {
        "two stages": two_stages,
        "online, kept": lambda: online("kept", keep=folder / "kept-store"),
        "online, fresh": lambda: online("fresh", keep=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--backbone", default="r3d-tiny")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--name", help="of the files in benchmarks/results")
    args = parser.parse_args()
    rows = []
    config = PretrainConfig(epochs=args.epochs, batch_size=args.batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = render_videos(folder / "videos", videos=args.videos, seconds=args.seconds)
        job = make_job(videos, backbone=args.backbone)
        for turn in range(args.rounds):
            for way, action in ways(job, folder / str(turn), config).items():
                begin = time.perf_counter()
                loss = action().losses["loss"]
                seconds = round(time.perf_counter() - begin, 3)
                rows.append({"way": way, "round": turn, "seconds": seconds, "epochs": args.epochs})
                print(f"{way:<14} {seconds:8.2f} s for {args.epochs} epochs, last loss {loss:.3f}")
    print(f"load {os.getloadavg()[0]:.1f}")
    if args.name:
        from results import write_rows

        rows = [{"backbone": args.backbone, "videos": args.videos, **row} for row in rows]
        print(*write_rows(rows, name=args.name, folder=Path("benchmarks/results")))


if __name__ == "__main__":
    main()
