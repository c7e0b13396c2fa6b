"""What extraction costs beside decoding and the backbone: the store, its checksums, the ledger and the progress lines.

`python benchmarks/programs/extraction.py [--videos N] [--pairs N] [--backbone NAME] [--name FILES]` renders 10 s videos
of 340x256 and times two ways in turns, each pair in the other order than the last:

    bare    the same pool of decoding processes, and the backbone on the same batches; nothing else
    whole   `extract` into a store

The overhead is the median of the pairs' ratios. Nothing is timed before both have given the same features. The default
backbone is a small one, beside which all else weighs most. `own` is the share of an extraction's time in which the
process neither waits for decoders nor runs the backbone, taken by its own clock; `others`, how many processors other
processes kept busy meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from decode_ways import render
from others import Others

from scalefast.backbones import load_backbone
from scalefast.features import ExtractSummary, FeatureStore, extract
from scalefast.features._job import Extraction, item_of
from scalefast.video import VideoList, isolated_map, train_recipe

__all__ = ["bare", "check", "make_job", "pairs", "render_videos", "whole"]


def render_videos(folder: Path, *, videos: int, seconds: int) -> VideoList:
    """One rendered video under several names."""
    folder.mkdir(parents=True)
    first = render(folder / "00000.mp4", seconds=seconds)
    for number in range(1, videos):
        os.link(first, folder / f"{number:05d}.mp4")
    return VideoList.read(folder)


def make_job(videos: VideoList, *, backbone: str) -> Extraction:
    """16 clips of every video, as the paper has them; the clips of a video are a batch."""
    loaded = load_backbone(backbone, dtype="fp32")
    recipe = train_recipe(num_frames=loaded.num_frames, stride=loaded.stride, size=loaded.size)
    return Extraction(videos=videos, backbone=loaded, recipe=recipe, batch_clips=recipe.clips)


def bare(job: Extraction) -> torch.Tensor:
    """Decoding and backbone: float32 [T, D]."""
    features = []
    with closing(isolated_map(job.decode, map(item_of, job.videos))) as outcomes:
        for outcome in outcomes:
            features.append(job.backbone(torch.from_numpy(outcome.result().clips)))
    return torch.cat(features)


def whole(job: Extraction, out: Path, *, progress: bool = True) -> ExtractSummary:
    """The same into a new store."""
    return extract(
        job.videos,
        backbone=job.backbone,
        recipe=job.recipe,
        out=out,
        batch_clips=job.batch_clips,
        progress=progress,
    )


def check(job: Extraction, folder: Path) -> None:
    """Refuse to go on unless both ways give the same features."""
    whole(job, folder / "checked", progress=False)
    kept = FeatureStore.open(folder / "checked").features.tensor().flatten(0, 1)
    if not torch.equal(bare(job).to(kept.dtype), kept):
        raise AssertionError("bare and whole give different features: nothing is timed")


def pairs(job: Extraction, folder: Path, *, number: int) -> list[dict[str, Any]]:
    """Seconds of both ways in each of so many pairs, their ratio, and the share `own` of the whole one."""
    rows = []
    for turn in range(number):
        summaries: list[ExtractSummary] = []
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: bare(job),
            "whole": lambda: summaries.append(whole(job, folder / "store")),  # noqa: B023  called in this turn
        }
        seconds = {}
        with Others() as others:
            for way in ways if turn % 2 == 0 else reversed(ways):
                begin = time.perf_counter()
                ways[way]()
                seconds[way] = time.perf_counter() - begin
        shutil.rmtree(folder / "store")
        stages = summaries[0].stages
        own = 1 - stages["decode"] - stages["backbone"]
        ratio = seconds["whole"] / seconds["bare"]
        rows.append({**seconds, "ratio": ratio, "own": own, "others": others.busy})
    return [{key: round(value, 4) for key, value in row.items()} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--backbone", default="r3d-tiny")
    parser.add_argument("--name", help="of the files in benchmarks/results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = render_videos(folder / "videos", videos=args.videos, seconds=args.seconds)
        job = make_job(videos, backbone=args.backbone)
        check(job, folder)
        rows = pairs(job, folder, number=args.pairs)
    for row in rows:
        print(*(f"{key} {value:.4f}" for key, value in row.items()))
    ratios = sorted(row["ratio"] for row in rows)
    print(
        f"overhead {statistics.median(ratios) - 1:+.2%} (median of {len(ratios)} pairs, {ratios[0] - 1:+.2%} to "
        f"{ratios[-1] - 1:+.2%}; target: below 3%); own {statistics.median(row['own'] for row in rows):.2%}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    if args.name:
        from results import write_rows

        rows = [{"backbone": args.backbone, "videos": args.videos, **row} for row in rows]
        print(*write_rows(rows, name=args.name, folder=Path("benchmarks/results")))


if __name__ == "__main__":
    main()
