"""How many videos a second worker processes load, two beside one: from the file to 16 clips in the caller's hands.

`python benchmarks/programs/decode_workers.py [--name FILES]` prints both for videos of 340x256 and 640x360, in turns.
Speeds are those of the steady state: start-up is left out, and so is the end, where one process works alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from decode_ways import SIZES, render
from others import QUIET, Others

from scalefast.video import isolated_map, load_clips, train_recipe

__all__ = ["compare_workers", "videos_per_second"]


def videos_per_second(path: Path, *, workers: int, videos: int = 24) -> float:
    """The speed at which so many processes load videos like this one.

    Args:
        path: the video.
        workers: processes.
        videos: how many are timed, a multiple of `workers`, so that each has its turn equally often.
    """
    assert videos % workers == 0, f"{videos = }, {workers = }"
    before, after = 3 * workers, workers  # until all have started, and so that all are busy to the last
    job = partial(load_clips, recipe=train_recipe(), seed=0, video_id="benchmark")
    moments = []
    for outcome in isolated_map(job, [str(path)] * (before + videos + after), workers=workers, ordered=False):
        outcome.result()
        moments.append(time.perf_counter())
    return videos / (moments[before + videos] - moments[before])


def compare_workers(path: Path, *, rounds: int = 5, videos: int = 24) -> dict[str, Any]:
    """Videos a second of one process and of two in each round, timed in turns, and how they compare.

    Rounds in which others use the machine are done again (twice `rounds` times at most); `disturbed` says how many.
    """
    speeds: dict[int, list[float]] = {1: [], 2: []}
    disturbed = 0
    while len(speeds[1]) < rounds:
        turn = {}
        with Others() as others:
            for workers in (1, 2) if len(speeds[1]) % 2 == 0 else (2, 1):
                turn[workers] = videos_per_second(path, workers=workers, videos=videos)
        if others.busy > QUIET and disturbed < 2 * rounds:
            disturbed += 1
            continue
        for workers, speed in turn.items():
            speeds[workers].append(speed)
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    return {
        "one": [round(speed, 2) for speed in speeds[1]],
        "two": [round(speed, 2) for speed in speeds[2]],
        "ratio": round(statistics.median(ratios), 3),
        "ratio_from": round(min(ratios), 3),
        "ratio_to": round(max(ratios), 3),
        "disturbed": disturbed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--name", help="of the files in benchmarks/results")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (height, width) in SIZES.items():
            path = render(Path(folder) / f"{name}.mp4", height=height, width=width)
            found = compare_workers(path, rounds=args.rounds, videos=args.videos)
            rows.append({"video": name, **found})
            print(
                f"{name}: one worker {found['one']}, two {found['two']} videos/s: {found['ratio']} times "
                f"({found['ratio_from']} to {found['ratio_to']}); {found['disturbed']} rounds disturbed"
            )
    if args.name:
        from results import write_rows

        print(*write_rows(rows, name=args.name, folder=Path("benchmarks/results")))


if __name__ == "__main__":
    main()
