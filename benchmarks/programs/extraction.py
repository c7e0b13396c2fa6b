"""What extraction costs beside decoding and the backbone: the store, its checksums, the ledger and the progress lines.

`python benchmarks/programs/extraction.py [--videos N] [--rounds N] [--backbone NAME]` renders 10 s videos of 340x256
and times, in turns, decoding and backbone alone (`bare`: the same workers and batches, features thrown away) and
`extract` into a store (`whole`). The overhead is that of the best rounds. Nothing is timed before both have given the
same features.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch

from scalefast.backbones import load_backbone
from scalefast.features import FeatureStore, extract
from scalefast.features._job import Extraction, built_shards
from scalefast.features._stages import StageClock
from scalefast.video import VideoList, train_recipe


def render_videos(folder: Path, *, videos: int, seconds: int) -> VideoList:
    """One rendered video under several names."""
    path = Path(__file__).with_name("decode_ways.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder.mkdir(parents=True)
    first = module.render(folder / "00000.mp4", seconds=seconds)
    for number in range(1, videos):
        os.link(first, folder / f"{number:05d}.mp4")
    return VideoList.read(folder)


def make_job(videos: VideoList, *, backbone: str) -> Extraction:
    """16 clips of every video, as the paper has them."""
    loaded = load_backbone(backbone, dtype="fp32")
    recipe = train_recipe(num_frames=loaded.num_frames, stride=loaded.stride, size=loaded.size)
    return Extraction(videos=videos, backbone=loaded, recipe=recipe)


def bare(job: Extraction) -> torch.Tensor:
    """Decoding and backbone in the same processes and batches, without a store: features [T, D]."""
    todo = dict(enumerate(job.parts))
    shards = built_shards(job, todo, workers=None, clock=StageClock(), told=lambda entry, result: None)
    with closing(shards):
        return torch.cat([content.features for _, content in shards])


def whole(job: Extraction, out: Path) -> torch.Tensor:
    """The same into a store, with progress lines."""
    shutil.rmtree(out, ignore_errors=True)
    extract(job.videos, backbone=job.backbone, recipe=job.recipe, out=out)
    return FeatureStore.open(out).features.tensor().flatten(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="r3d-tiny")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        job = make_job(
            render_videos(Path(name, "videos"), videos=args.videos, seconds=args.seconds),
            backbone=args.backbone,
        )
        if not torch.equal(bare(job), whole(job, Path(name, "store"))):
            raise SystemExit("bare and whole give different features: nothing is timed")
        times: dict[str, list[float]] = {"bare": [], "whole": []}
        for _ in range(args.rounds):
            for way, action in (
                ("bare", lambda: bare(job)),
                ("whole", lambda: whole(job, Path(name, "store"))),
            ):
                begin = time.perf_counter()
                action()
                times[way].append(time.perf_counter() - begin)
    best = {way: min(rounds) for way, rounds in times.items()}
    for way, rounds in times.items():
        print(f"{way:<6} {best[way]:8.3f} s best of {[round(seconds, 3) for seconds in rounds]}")
    print(
        f"overhead {best['whole'] / best['bare'] - 1:+.2%} (target: below 3%); load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
