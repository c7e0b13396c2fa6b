"""Render a set of videos: `python -m scalefast.demo VIDEOS --structure tempo`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scalefast.demo.dataset import VIDEO_STRUCTURES, DemoSet, render_set
from scalefast.errors import ScalefastError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scalefast.demo", description=__doc__)
    parser.add_argument("folder", type=Path, help="new, or of the same set: videos that are there stay")
    parser.add_argument("--structure", choices=VIDEO_STRUCTURES, default="order", help="what tells a class")
    parser.add_argument("--seed", type=int, default=DemoSet.seed)
    parser.add_argument("--train-per-class", type=int, default=DemoSet.train_per_class)
    parser.add_argument("--test-per-class", type=int, default=DemoSet.test_per_class)
    parser.add_argument("--seconds", type=int, help="length of every video, for chapters (180)")
    options = vars(parser.parse_args())
    folder, demo = options.pop("folder"), DemoSet(**options)
    render_set(folder, demo)
    print(f"{folder}: {sum(1 for _ in demo.videos())} videos of {len(demo.classes)} classes")


if __name__ == "__main__":
    try:
        main()
    except ScalefastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
