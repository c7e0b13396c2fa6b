"""The demo's data sets on disk: rendered videos in H.264, in `train/` and `test/` class folders."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scalefast.demo import actions, chapters, patterns
from scalefast.demo.scene import FPS, FRAME_SIZE
from scalefast.errors import InputError, require

__all__ = ["VIDEO_STRUCTURES", "DemoSet", "VideoStructure", "render_set", "write_video"]

VideoStructure = Literal["order", "tempo", "company", "chapters"]
VIDEO_STRUCTURES: tuple[VideoStructure, ...] = get_args(VideoStructure)

_SECONDS: Mapping[VideoStructure, int] = {
    "order": actions.SECONDS,
    "tempo": patterns.SECONDS,
    "company": patterns.SECONDS,
    "chapters": chapters.SECONDS,
}
_LEAST_SECONDS = 24
"""Of a video of `chapters`: its events then last 2 s, about one clip."""

_RECORD = "rendered.json"
_RENDERER = 1
"""Raised when a change of the renderer changes pixels, so that older folders are not taken for new ones."""


@dataclass(frozen=True, kw_only=True)
class DemoSet:
    """What to render; two equal sets hold the same videos."""

    structure: VideoStructure = "order"
    """What tells the class of a video: the order of two motions (`actions`; the demo's set), when the object moves, or
    which motions go together (`patterns`), or the order of three events of a long video (`chapters`)."""
    seed: int = 0
    """Of everything that varies between videos."""
    train_per_class: int = 24
    """Training videos of each class."""
    test_per_class: int = 10
    """Test videos of each class; they share nothing with the training videos but the classes."""
    seconds: int | None = None
    """Length of every video of `chapters`; None: three minutes. The others have one length each, which is filled in."""

    def __post_init__(self) -> None:
        if self.structure not in VIDEO_STRUCTURES:
            raise InputError(
                f"structure must be one of {', '.join(VIDEO_STRUCTURES)}; got {self.structure!r}"
            )
        if self.seed < 0 or min(self.train_per_class, self.test_per_class) < 1:
            raise InputError(
                f"a demo set needs seed >= 0 and at least one video of each class and split; got {self}"
            )
        own = _SECONDS[self.structure]
        if self.seconds not in (None, own) and self.structure != "chapters":
            raise InputError(f"videos of structure {self.structure} last {own} seconds; got {self.seconds}")
        if self.seconds is not None and self.seconds < _LEAST_SECONDS:
            raise InputError(
                f"videos of structure chapters last {_LEAST_SECONDS} seconds or more; got {self.seconds}"
            )
        object.__setattr__(self, "seconds", own if self.seconds is None else self.seconds)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        if self.structure == "chapters":
            return chapters.CHAPTERS
        return actions.CLASSES if self.structure == "order" else patterns.PATTERNS[self.structure]

    @property
    def fps(self) -> int:
        """Frames a second of every video."""
        return chapters.FPS if self.structure == "chapters" else FPS

    def frames(self, split: str, name: str, index: int) -> NDArray[np.uint8]:
        """Frames of one of `videos()`, uint8 [T, H, W, 3], RGB."""
        if self.structure == "order":
            return actions.render_action(name, seed=self.seed, split=split, index=index)
        if self.structure == "chapters":
            return chapters.render_chapters(
                name, seed=self.seed, split=split, index=index, seconds=self.seconds or chapters.SECONDS
            )
        return patterns.render_pattern(self.structure, name, seed=self.seed, split=split, index=index)

    def crf(self, split: str, name: str, index: int) -> int:
        """Compression of one of `videos()`, x264's constant rate factor.

        It varies where pauses would otherwise show in the file size: at 20 throughout, a forest on the size alone told
        16% of the videos of `company` (chance 8%).
        """
        if self.structure == "order":
            return 20
        key = zlib.crc32(f"crf/{self.structure}/{split}/{name}/{index}".encode())
        return int(np.random.Generator(np.random.Philox(key=[self.seed, key])).integers(16, 29))

    def videos(self) -> Iterator[tuple[str, str, int]]:
        """(split, class, index) of every video, in the order in which they are rendered."""
        for split, count in (("train", self.train_per_class), ("test", self.test_per_class)):
            for name in self.classes:
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
        (demo, split, name, index, path)
        for split, name, index in demo.videos()
        if not (path := root / split / name / f"{split}_{index:03d}.mp4").exists()
    ]
    for parent in {job[4].parent for job in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
        for unfinished in parent.glob(
            ".*.mp4.*.tmp"
        ):  # of a call that was killed; lists would count it as a video
            unfinished.unlink(missing_ok=True)
    if jobs:
        # spawn: a fork of a process in which torch has started its threads can hang.
        with ProcessPoolExecutor(
            workers or len(os.sched_getaffinity(0)), mp_context=get_context("spawn")
        ) as pool:
            for _ in pool.map(_render_one, jobs, chunksize=4):
                pass
    return root


def write_video(path: Path, frames: Iterator[object] | list[object], *, fps: int, crf: int = 20) -> None:
    """Encode RGB frames (uint8 [H, W, 3], even H and W) as H.264, whole or not at all; `crf` 0 is lossless, 51 coarse.

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
                        "crf": str(crf),
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


def _render_one(job: tuple[DemoSet, str, str, int, Path]) -> None:
    demo, split, name, index, path = job
    frames, crf = demo.frames(split, name, index), demo.crf(split, name, index)
    write_video(path, iter(frames), fps=demo.fps, crf=crf)


def _claim(root: Path, demo: DemoSet) -> None:
    """Write down what the folder is for before anything is rendered, or refuse one that is for something else."""
    wanted = {
        "renderer": _RENDERER,
        "structure": demo.structure,
        "seed": demo.seed,
        "train_per_class": demo.train_per_class,
        "test_per_class": demo.test_per_class,
        "seconds": demo.seconds,
        "fps": demo.fps,
        "height": FRAME_SIZE[0],
        "width": FRAME_SIZE[1],
    }
    record = root / _RECORD
    if record.is_file():
        try:
            found = {"structure": "order", **json.loads(record.read_text())}  # as all sets had it at first
        except (ValueError, TypeError) as error:
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
