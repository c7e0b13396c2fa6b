"""Clips from one pass: the very frames that PyAV used plainly gives, from every codec and container."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scalefast.errors import InputError
from scalefast.video import (
    ClipSpec,
    ShortDecodeError,
    VideoError,
    clip_positions,
    decode_clips,
    load_clips,
    probe,
    sample_clips,
    test_recipe,
    train_recipe,
)

X264 = {
    "default": {},
    "closed gops of 12": {"g": "12"},
    "open gops of 12": {"g": "12", "x264-params": "open-gop=1"},
    "no b-frames": {"bf": "0", "g": "20"},
    "many b-frames": {"bf": "8", "x264-params": "b-pyramid=strict", "g": "30"},
    "many references": {"bf": "3", "refs": "8", "x264-params": "b-pyramid=normal"},
    "intra": {"g": "1"},
    "intra refresh": {"x264-params": "intra-refresh=1:keyint=15"},
    "slices": {"x264-params": "slices=4:keyint=25"},
    "zero latency": {"tune": "zerolatency", "g": "25"},
}


def _whole(frames: list[int] | range, *, side: int = 96) -> ClipSpec:
    """A clip of these frames: the left square of a 128x96 video, not resized."""
    return ClipSpec(frames=tuple(frames), box=(0, 0, side, side), flip=False, size=side, t0=0, t1=1)


@pytest.fixture(params=X264.values(), ids=X264)
def encoded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, render: Callable[..., Path]
) -> Path:
    return render(tmp_path_factory.mktemp("x264") / "v.mp4", frames=70, options=request.param)


def test_frames_are_those_of_a_plain_pass(
    encoded: Path, plain_frames: Callable[[Path], list[np.ndarray]], read_number: Callable[[np.ndarray], int]
) -> None:
    plain = plain_frames(encoded)
    assert len(plain) == 70
    choices = [[0], [69], [33], [3, 3, 3], [0, 69], [5, 6, 7, 40, 41], list(range(0, 70, 4)), list(range(70))]
    for chosen in choices:
        (clip,) = decode_clips(encoded, [_whole(chosen)])
        assert [read_number(picture) for picture in clip] == chosen
        assert all(
            np.array_equal(picture, plain[number][:, :96])
            for picture, number in zip(clip, chosen, strict=True)
        )


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi", "mpegts"])
def test_containers(
    tmp_path: Path, render: Callable[..., Path], read_number: Callable[[np.ndarray], int], container: str
) -> None:
    path = render(
        tmp_path / f"v.{'ts' if container == 'mpegts' else container}", frames=50, options={"g": "12"}
    )
    chosen = [2, 3, 17, 30, 31, 48]
    (clip,) = decode_clips(path, [_whole(chosen)])
    assert [read_number(picture) for picture in clip] == chosen


@pytest.mark.parametrize(
    "codec, name", [("mpeg4", "v.avi"), ("libvpx", "v.webm"), ("libvpx-vp9", "v.webm"), ("libx265", "v.mp4")]
)
def test_codecs(
    tmp_path: Path,
    render: Callable[..., Path],
    read_number: Callable[[np.ndarray], int],
    codec: str,
    name: str,
) -> None:
    path = render(tmp_path / name, frames=24, codec=codec)
    chosen = [0, 5, 6, 22, 23]
    (clip,) = decode_clips(path, [_whole(chosen)])
    assert [read_number(picture) for picture in clip] == chosen


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_change_nothing(numbered_video: Path, threads: int) -> None:
    specs = sample_clips(probe(numbered_video), train_recipe(size=64), seed=0, video_id="x")
    assert np.array_equal(
        decode_clips(numbered_video, specs, threads=threads), decode_clips(numbered_video, specs)
    )


TURNS = {  # display matrix (a, b, c, d) -> (rotation, the decoded picture as it is to be shown)
    (0, 1, -1, 0): (270, lambda picture: np.rot90(picture, -1)),  # a telephone held upright
    (-1, 0, 0, -1): (180, lambda picture: np.rot90(picture, 2)),
    (0, -1, 1, 0): (90, lambda picture: np.rot90(picture, 1)),
    (-1, 0, 0, 1): (0, lambda picture: picture[:, ::-1]),  # a selfie
    (1, 0, 0, -1): (180, lambda picture: picture[::-1]),
    (0, 1, 1, 0): (270, lambda picture: picture.swapaxes(0, 1)),
}


@pytest.mark.parametrize("matrix", TURNS, ids=str)
def test_turned_video(
    tmp_path: Path,
    render: Callable[..., Path],
    plain_frames: Callable[[Path], list[np.ndarray]],
    matrix: tuple[int, int, int, int],
) -> None:
    rotation, show = TURNS[matrix]
    path = render(tmp_path / "v.mp4", frames=5, pixel_format="yuv444p", matrix=matrix)
    plain = [show(picture) for picture in plain_frames(path)]
    meta = probe(path)
    assert meta.rotation == rotation and (meta.height, meta.width) == plain[0].shape[:2]
    spec = ClipSpec(frames=(0, 3), box=(10, 6, 80, 80), flip=False, size=80, t0=0, t1=1)
    (clip,) = decode_clips(path, [spec])
    assert np.abs(clip - np.stack([plain[0], plain[3]])[:, 10:90, 6:86].astype(int)).max() <= 1
    (mirrored,) = decode_clips(path, [replace(spec, flip=True)])
    assert np.array_equal(mirrored, clip[:, :, ::-1])


def test_shared_videos_equal_a_plain_pass(
    shared_data: Path, manifest: list[dict[str, str]], plain_frames: Callable[[Path], list[np.ndarray]]
) -> None:
    """Every shared file: frame counts, and clips that equal boxes of plainly decoded frames."""
    for row in manifest:
        if not row["frames_dec"]:
            continue
        path = shared_data / "videos" / row["name"]
        plain = plain_frames(path)
        turns = int(row["rotation"]) // 90
        last = len(plain) - 1
        assert len(plain) == int(row["frames_dec"])
        chosen = sorted({0, 1, last // 3, last // 2, last // 2 + 1, last})
        upright = [np.rot90(plain[number], turns) for number in chosen]
        side = min(upright[0].shape[:2]) // 2 * 2
        spec = ClipSpec(frames=tuple(chosen), box=(0, 0, side, side), flip=False, size=side, t0=0, t1=1)
        (clip,) = decode_clips(path, [spec])
        if row["pix_fmt"] != "yuv420p10le" and "odd" not in row["name"]:
            assert np.array_equal(clip, np.stack(upright)[:, :side, :side]), row["name"]
            continue
        for picture, number in zip(clip, chosen, strict=True):  # PyAV takes another way to RGB for these two
            errors = [np.abs(picture - other[:side, :side].astype(int)).mean() for other in plain]
            assert np.argmin(errors) == number and errors[number] < 4, row["name"]


def test_shared_videos_load(shared_data: Path, manifest: list[dict[str, str]]) -> None:
    for row in manifest:
        path = shared_data / "videos" / row["name"]
        if not row["frames_dec"]:
            with pytest.raises(VideoError, match=r"no video: it holds audio only"):
                load_clips(path, train_recipe(), seed=0, video_id=row["name"])
            continue
        for recipe in (train_recipe(size=64, clips=3), test_recipe(size=64, temporal=2)):
            clips, positions, meta, status = load_clips(path, recipe, seed=0, video_id=row["name"])
            assert clips.shape == (recipe.clips, 16, 64, 64, 3) and clips.dtype == np.uint8
            specs = sample_clips(meta, recipe, seed=0, video_id=row["name"])
            assert np.array_equal(positions, clip_positions(specs, meta))
            assert np.array_equal(clips, decode_clips(path, specs))
            assert meta.num_frames == int(row["frames_dec"]) and meta.fps == pytest.approx(
                float(row["fps"]), abs=0.01
            )
            assert status == ("short" if meta.num_frames < 64 / 30 * float(row["fps"]) - 1 else "ok")
            assert meta.note == ""


def test_more_frames_than_there_are(
    numbered_video: Path, tmp_path: Path, render: Callable[..., Path]
) -> None:
    with pytest.raises(ShortDecodeError, match="frame 95 was asked for, but only 90 frames decode") as caught:
        decode_clips(numbered_video, [_whole([1, 95])])
    assert caught.value.frames == 90
    webm = render(tmp_path / "v.webm", frames=9, codec="libvpx")
    with pytest.raises(ShortDecodeError, match="frame 9 was asked for, but only 9 frames decode"):
        decode_clips(webm, [_whole([9])])


def test_clips_of_different_shapes_are_refused(numbered_video: Path) -> None:
    with pytest.raises(
        InputError, match=r"one number of frames and one size, got .*\[\(1, 96\), \(2, 96\)\]"
    ):
        decode_clips(numbered_video, [_whole([1]), _whole([1, 2])])
    with pytest.raises(InputError, match="one number of frames and one size"):
        decode_clips(numbered_video, [])


def test_flip_and_overlap(numbered_video: Path) -> None:
    straight = _whole([3, 9, 9, 20])
    mirrored = ClipSpec(frames=(9, 20, 21, 22), box=straight.box, flip=True, size=96, t0=0, t1=1)
    one, other = decode_clips(numbered_video, [straight, mirrored])
    assert np.array_equal(one[1], one[2]) and np.array_equal(one[2], other[0][:, ::-1])
    assert np.array_equal(one[3], other[1][:, ::-1])
