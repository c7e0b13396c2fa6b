"""The demo's data set on disk: rendered action videos in H.264, in `train/` and `test/` class folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from scalefast.demo.actions import CLASSES, FPS, FRAME_SIZE, SECONDS, render_action
from scalefast.errors import InputError, require

__all__ = ["DemoSet", "render_set", "write_video"]

_RECORD = "rendered.json"
_RENDERER = 1
"""Raised when a change of the renderer changes pixels, so that older folders are not taken for new ones."""


@dataclass(frozen=True, kw_only=True)
class DemoSet:
    """What to render; two equal sets hold the same videos."""

    seed: int = 0
    """Of everything that varies between videos."""
    train_per_class: int = 24
    """Training videos of each class."""
    test_per_class: int = 10
    """Test videos of each class; they share nothing with the training videos but the classes."""

    def __post_init__(self) -> None:
        if self.seed < 0 or min(self.train_per_class, self.test_per_class) < 1:
            raise InputError(
                f"a demo set needs seed >= 0 and at least one video of each class and split; got {self}"
            )

    def videos(self) -> Iterator[tuple[str, str, int]]:
        """(split, class, index) of every video, in the order in which they are rendered."""
        for split, count in (("train", self.train_per_class), ("test", self.test_per_class)):
            for name in CLASSES:
                for index in range(count):
                    yield split, name, index


def render_set(folder: str | os.PathLike[str], demo: DemoSet, *, workers: int | None = None) -> Path:
    """Render a demo set into `folder/{train,test}/CLASS/{train,test}_NNN.mp4`; videos that are there already stay.

    Args:
        folder: new, or one that this function wrote or was writing for the same set.
        demo: what to render.
        workers: processes; None takes one for each CPU.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something else, or another set.
        MissingExtraError: PyAV is not installed.
    """
    require("av", extra="video", needed_for="encoding the demo's videos")
    root = Path(folder)
    _claim(root, demo)
    jobs = [
        (demo.seed, split, name, index, path)
        for split, name, index in demo.videos()
        if not (path := root / split / name / f"{split}_{index:03d}.mp4").exists()
    ]
    for parent in {job[4].parent for job in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    if jobs:
        # spawn: a fork of a process in which torch has started its threads can hang.
        with ProcessPoolExecutor(
            workers or len(os.sched_getaffinity(0)), mp_context=get_context("spawn")
        ) as pool:
            for _ in pool.map(_render_one, jobs, chunksize=4):
                pass
    return root


def write_video(path: Path, frames: Iterator[object] | list[object], *, fps: int) -> None:
    """Encode RGB frames (uint8 [H, W, 3], even H and W) as H.264, whole or not at all.

    One encoder thread and x264's plain C code, so that the same frames give the same bytes: with its AVX-512 code 8
    encodings of one video of 80 x 96 gave 4 different files (x264 of PyAV 18.1, EPYC with AVX-512, November 2026).
    """
    av = require("av", extra="video", needed_for="encoding videos")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = None
            for image in frames:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                if stream is None:
                    stream = container.add_stream("libx264", rate=fps)
                    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                    stream.options = {
                        "crf": "20",
                        "preset": "veryfast",
                        "threads": "1",
                        "x264-params": "asm=0",
                    }
                container.mux(stream.encode(frame))
            if stream is not None:
                container.mux(stream.encode(None))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _render_one(job: tuple[int, str, str, int, Path]) -> None:
    seed, split, name, index, path = job
    write_video(path, list(render_action(name, seed=seed, split=split, index=index)), fps=FPS)


def _claim(root: Path, demo: DemoSet) -> None:
    """Write down what the folder is for before anything is rendered, or refuse one that is for something else."""
    wanted = {
        "renderer": _RENDERER,
        "seed": demo.seed,
        "train_per_class": demo.train_per_class,
        "test_per_class": demo.test_per_class,
        "seconds": SECONDS,
        "fps": FPS,
        "height": FRAME_SIZE[0],
        "width": FRAME_SIZE[1],
    }
    record = root / _RECORD
    if record.is_file():
        try:
            found = json.loads(record.read_text())
        except ValueError as error:
            raise InputError(
                f"{record}: not readable JSON; give another folder, or delete this one"
            ) from error
        if found != wanted:
            raise InputError(f"{root}: holds another demo set ({found}), not {wanted}; give another folder")
        return
    if root.is_dir() and any(root.iterdir()):
        raise InputError(f"{root}: is not empty and holds no demo set; give another folder")
    root.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(wanted, indent=2) + "\n")
