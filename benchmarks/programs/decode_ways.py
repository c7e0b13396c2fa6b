"""Ways to decode the clips of a video, ours and others', and 10 s H.264 videos to try them on.

`python benchmarks/programs/decode_ways.py [VIDEO] [--name FILES]` prints the ways side by side, for 340x256 and 640x360
if no video is given (worker processes: `decode_workers.py`). Every way takes (path, clips) and returns
uint8 [N, T, S, S, 3]; all decode with one thread. Ways of other libraries are the usual ones: one seek and decode for
each clip, whole frames, then crop and resize.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from scalefast.video import (
    ClipSpec,
    decode_clips,
    probe,
    sample_clips,
    test_recipe,
    train_recipe,
)

Way = Callable[[Path, Sequence[ClipSpec]], np.ndarray]
SIZES = {"340x256": (256, 340), "640x360": (360, 640)}
"""Name -> (height, width) of the videos that are rendered."""


def render(
    path: Path, *, seconds: int = 10, height: int = 256, width: int = 340, codec: str = "libx264"
) -> Path:
    """A video in the size of the usual Kinetics copies: a textured scene that pans, shakes and has things moving."""
    rng = np.random.default_rng(0)
    shape = (640, 960, 3)
    scene = np.zeros(shape)
    for cell, strength in (
        (64, 0.5),
        (16, 0.3),
        (8, 0.2),
    ):  # large and small patches, as of things and textures
        patches = rng.uniform(0, 255, (shape[0] // cell, shape[1] // cell, 3))
        scene += strength * np.kron(patches, np.ones((cell, cell, 1)))
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(30 * seconds):
            top = 150 + int(100 * np.sin(number / 40)) + int(rng.integers(0, 3))
            left = 250 + int(200 * np.sin(number / 70)) + int(rng.integers(0, 3))
            picture = scene[top : top + height, left : left + width].copy()
            x = 20 + number * 3 % (width - 80)
            picture[100:160, x : x + 60] = (230, 40, 90)
            picture += rng.normal(0, 4, picture.shape)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def one_pass(path: Path, clips: Sequence[ClipSpec]) -> np.ndarray:
    """This library."""
    return decode_clips(path, clips)


def seek_per_clip(path: Path, clips: Sequence[ClipSpec]) -> np.ndarray:
    """A selective decode for each clip: seek to the keyframe before it, decode to its last frame."""
    result = []
    with av.open(path) as container:
        stream = _single_threaded(container)
        for clip in clips:
            container.seek(int(clip.frames[0] / stream.average_rate / stream.time_base), stream=stream)
            numbered = (
                (round(f.pts * stream.time_base * stream.average_rate), f) for f in container.decode(stream)
            )
            result.append(_take(numbered, clip))
    return np.stack(result)


def plainly(path: Path, clips: Sequence[ClipSpec]) -> np.ndarray:
    """PyAV as its documentation uses it: open, decode from the start, convert the frames that are wanted."""
    result = []
    for clip in clips:
        with av.open(path) as container:
            result.append(_take(enumerate(container.decode(_single_threaded(container))), clip))
    return np.stack(result)


def _single_threaded(container: av.container.InputContainer) -> av.VideoStream:
    stream = container.streams.best("video")
    stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
    return stream


def _take(numbered, clip: ClipSpec) -> np.ndarray:
    """The clip's frames, scaled whole by FFmpeg and then cut."""
    top, left, height, _ = clip.box
    scale = clip.size / height
    pictures = {}
    for number, frame in numbered:
        if number in clip.frames:
            size = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
            picture = frame.reformat(**size, format="rgb24", threads=1).to_ndarray()
            y = min(round(top * scale), size["height"] - clip.size)
            x = min(round(left * scale), size["width"] - clip.size)
            picture = picture[y : y + clip.size, x : x + clip.size]
            pictures[number] = picture[:, ::-1] if clip.flip else picture
        if number >= clip.frames[-1]:
            break
    return np.stack([pictures[number] for number in clip.frames])


def _resized(pictures: np.ndarray, clip: ClipSpec) -> np.ndarray:
    """Whole frames [T, H, W, 3] of the clip, cut and resized with torch, as torchvision's transforms do."""
    import torch

    torch.set_num_threads(1)
    top, left, height, width = (round(number) for number in clip.box)
    box = torch.from_numpy(pictures).permute(0, 3, 1, 2)[..., top : top + height, left : left + width]
    if box.shape[-1] != clip.size:
        box = torch.nn.functional.interpolate(
            box, size=(clip.size, clip.size), mode="bilinear", antialias=True
        )
    box = box.flip(-1) if clip.flip else box
    return box.permute(0, 2, 3, 1).numpy()


def by_torchcodec() -> Way:
    """torchcodec; ImportError where it is absent."""
    try:
        from torchcodec.decoders import VideoDecoder
    except RuntimeError as error:  # FFmpeg's libraries are not there
        raise ImportError(str(error).strip().partition("\n")[0]) from error

    def decode(path: Path, clips: Sequence[ClipSpec]) -> np.ndarray:
        decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
        return np.stack([_resized(decoder.get_frames_at(list(c.frames)).data.numpy(), c) for c in clips])

    return decode


def by_decord() -> Way:
    """decord; ImportError where it is absent."""
    import decord

    def decode(path: Path, clips: Sequence[ClipSpec]) -> np.ndarray:
        reader = decord.VideoReader(str(path), num_threads=1)
        return np.stack([_resized(reader.get_batch(list(clip.frames)).asnumpy(), clip) for clip in clips])

    return decode


def by_opencv() -> Way:
    """OpenCV; ImportError where it is absent."""
    import cv2

    cv2.setNumThreads(1)
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"

    def picture(frame: np.ndarray, clip: ClipSpec) -> np.ndarray:
        top, left, height, width = (round(number) for number in clip.box)
        box = cv2.cvtColor(frame[top : top + height, left : left + width], cv2.COLOR_BGR2RGB)
        if height != clip.size:
            box = cv2.resize(box, (clip.size, clip.size), interpolation=cv2.INTER_LINEAR)
        return box[:, ::-1] if clip.flip else box

    def decode(path: Path, clips: Sequence[ClipSpec]) -> np.ndarray:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        result = []
        for clip in clips:
            video.set(cv2.CAP_PROP_POS_FRAMES, clip.frames[0])
            pictures = {}
            for number in range(clip.frames[0], clip.frames[-1] + 1):
                if not video.grab():
                    raise AssertionError(f"OpenCV ends before frame {number}")
                if number in clip.frames:
                    pictures[number] = picture(video.retrieve()[1], clip)
            result.append(np.stack([pictures[number] for number in clip.frames]))
        video.release()
        return np.stack(result)

    return decode


WAYS: dict[str, Way] = {"one pass": one_pass, "one seek a clip": seek_per_clip, "PyAV plainly": plainly}
PEERS: dict[str, Callable[[], Way]] = {
    "PyAV": lambda: seek_per_clip,
    "torchcodec": by_torchcodec,
    "decord": by_decord,
    "OpenCV": by_opencv,
}
"""Libraries in the usual way, one seek and decode a clip; made when asked for."""


def cases(path: Path) -> dict[str, tuple[list[ClipSpec], str]]:
    """What -> (clips, the way to compare with)."""
    meta = probe(path)
    train = sample_clips(meta, train_recipe(), seed=0, video_id="benchmark")
    middle = sorted(train, key=lambda clip: clip.frames[0])[len(train) // 2]
    views = sample_clips(meta, test_recipe(), seed=0, video_id="benchmark")
    return {
        "16 random clips": (train, "one seek a clip"),
        "5 x 3 test views": (views, "one seek a clip"),
        "one clip": ([middle], "PyAV plainly"),
    }


def verify(path: Path, peers: dict[str, Way] | None = None) -> None:
    """Refuse to go on unless all ways give the same frames, and nearly the same pictures of resized boxes.

    Args:
        path: the video.
        peers: ways to hold against one pass on random clips; None: each case's own.
    """
    for what, (clips, other) in cases(path).items():
        if peers is None:
            _verify_one(path, clips[:4], other, WAYS[other])
        elif what == "16 random clips":
            for name, way in peers.items():
                _verify_one(path, clips[:2], name, way)


def _verify_one(path: Path, clips: Sequence[ClipSpec], name: str, way: Way) -> None:
    side = 2 * (min(probe(path).height, probe(path).width) // 2)
    whole = [replace(clip, box=(0, 0, side, side), size=side, flip=False) for clip in clips]
    if not np.array_equal(one_pass(path, whole), way(path, whole)):
        raise AssertionError(f"{name!r} and one pass do not give the same frames")
    apart = np.abs(one_pass(path, clips).astype(int) - way(path, clips)).mean()
    if apart > 8:  # of 255: resizing and cutting in another order moves edges by up to a pixel
        raise AssertionError(f"{name!r} and one pass differ by {apart:.1f} levels")


def compare(path: Path, clips: Sequence[ClipSpec], other: str, *, rounds: int = 5) -> tuple[float, float]:
    """Best seconds of one pass and of the other way, timed in turns so that both meet the same machine."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for place, way in enumerate((one_pass, WAYS[other])):
            begin = time.perf_counter()
            way(path, clips)
            best[place] = min(best[place], time.perf_counter() - begin)
    return best[0], best[1]


def report(path: Path) -> list[dict[str, Any]]:
    """Print what all ways reach on this video, and return it: a row for each comparison."""
    verify(path)
    rows = []

    def add(what: str, other: str, clips: Sequence[ClipSpec]) -> None:
        ours, theirs = compare(path, clips, other)
        rows.append({"what": what, "other": other, "ours_s": round(ours, 4), "theirs_s": round(theirs, 4)})
        print(f"  {what}: {theirs / ours:.2f} times as fast as {other} ({ours:.3f} and {theirs:.3f} s)")

    for what, (clips, other) in cases(path).items():
        add(what, other, clips)
    clips, _ = cases(path)["16 random clips"]
    for name, make in PEERS.items():
        try:
            way = make()
        except ImportError as error:
            print(f"  {name}: absent ({error})")
            continue
        verify(path, {name: way})
        WAYS[name] = way
        add("16 random clips", name, clips)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", nargs="*", type=Path)
    parser.add_argument("--name", help="of the files in benchmarks/results")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {str(path): path for path in args.video}
        for name, (height, width) in SIZES.items() if not paths else ():
            paths[name] = render(Path(folder) / f"{name}.mp4", height=height, width=width)
        for name, path in paths.items():
            print(f"{name}:")
            rows += [{"video": name, **row} for row in report(path)]
    if args.name:
        from results import write_rows

        print(*write_rows(rows, name=args.name, folder=Path("benchmarks/results")))


if __name__ == "__main__":
    main()
