"""Cutting and resizing inside FFmpeg, against floating point arithmetic on the decoded planes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from scalefast.video._crop import cut
from scalefast.video._orientation import Orientation

UPRIGHT = Orientation()
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def _smooth_frame(format: str, *, height: int, width: int, seed: int = 0) -> av.VideoFrame:
    """A smooth colourful frame in `format`: what resizing filters agree on."""
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.uniform(60, 200, (1, 3, 4, 5)))
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 255)
    picture = np.ascontiguousarray(large[0].permute(1, 2, 0).round().byte().numpy())
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=format)


def _planes(frame: av.VideoFrame) -> list[torch.Tensor]:
    planes = []
    for part, plane in zip(frame.format.components, frame.planes, strict=True):
        wide = part.bits > 8
        rows = np.frombuffer(memoryview(plane), np.uint16 if wide else np.uint8)
        rows = rows.reshape(plane.height, -1)[:, : plane.width].astype(np.float64)
        planes.append(torch.from_numpy(rows / 2 ** (part.bits - 8)))
    return planes


def _reference(
    frame: av.VideoFrame,
    box: tuple[int, int, int, int],
    size: int,
    *,
    weights: tuple[float, float],
    full: bool,
) -> np.ndarray:
    """Float RGB of the box: chroma interpolated, matrix applied, antialiased bilinear resize."""
    luma, *chroma = _planes(frame)
    grow = {"size": tuple(luma.shape), "mode": "bilinear", "align_corners": False}
    blue, red = (torch.nn.functional.interpolate(plane[None, None], **grow)[0, 0] - 128 for plane in chroma)
    if not full:
        luma, blue, red = (luma - 16) * 255 / 219, blue * 255 / 224, red * 255 / 224
    kr, kb = weights
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    top, left, height, width = box
    picture = torch.stack([r, g, b])[None, :, top : top + height, left : left + width].clamp(0, 255)
    small = torch.nn.functional.interpolate(picture, size=(size, size), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("box", [(10, 20, 60, 60), (0, 0, 96, 96), (4, 8, 90, 50), (0, 30, 33, 33)], ids=str)
@pytest.mark.parametrize("size", [56, 64, 31])
@pytest.mark.parametrize("format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_close_to_floating_point(format: str, size: int, box: tuple[int, int, int, int]) -> None:
    frame = _smooth_frame(format, height=96, width=128)
    got = cut(frame, box=box, size=size, orientation=UPRIGHT, flip=False)
    error = got - _reference(frame, box, size, weights=BT601, full=False)
    assert got.shape == (size, size, 3) and got.dtype == np.uint8
    # An odd box leaves half a chroma sample over at its edge.
    assert np.abs(error).mean() < 2.2 and np.abs(error.mean((0, 1))).max() < (2.7 if box[2] % 2 else 1.6)
    assert np.quantile(np.abs(error), 0.99) < 6.5


@pytest.mark.parametrize("scale", [2, 3, 6.5])
def test_reduction_is_antialiased(scale: float) -> None:
    """A fine chequerboard becomes its mean, not an alias of itself."""
    side = int(40 * scale)
    board = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(np.repeat(board[..., None], 3, -1), format="rgb24").reformat(
        format="yuv420p"
    )
    got = cut(frame, box=(0, 0, side, side), size=40, orientation=UPRIGHT, flip=False)
    assert abs(got.astype(float).mean() - 127.5) < 3 and got.std() < 25


SPACES = {"709": (1, BT709), "601": (5, BT601), "unstated": (2, BT601), "2020": (9, (0.2627, 0.0593))}


@pytest.mark.parametrize("colorspace, weights", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("size", [60, 48])
def test_colour_space_and_range_are_obeyed(
    colorspace: int, weights: tuple[float, float], full: bool, size: int
) -> None:
    frame = _smooth_frame("yuv420p", height=96, width=128)
    frame.colorspace, frame.color_range = colorspace, 2 if full else 1
    got = cut(frame, box=(8, 16, 60, 60), size=size, orientation=UPRIGHT, flip=False)
    error = got - _reference(frame, (8, 16, 60, 60), size, weights=weights, full=full)
    assert np.abs(error).mean() < 2.0 and np.abs(error.mean((0, 1))).max() < 1.6


@pytest.mark.parametrize("span", [0, 1, 2])
def test_scaling_changes_no_grey(span: int) -> None:
    frame = av.VideoFrame(128, 96, "gray")
    for value in (0, 16, 100, 235, 255):
        frame.planes[0].update(bytes([value]) * frame.planes[0].buffer_size)
        frame.color_range = span
        for size in (40, 60, 90):
            got = cut(frame, box=(8, 16, 60, 60), size=size, orientation=UPRIGHT, flip=False)
            assert np.abs(got.astype(int) - value).max() <= 1


@pytest.mark.parametrize("space", [1, 2, 5, 9])
@pytest.mark.parametrize("span", [0, 1, 2])
def test_scaling_changes_no_colour(space: int, span: int) -> None:
    """A plain colour comes out as PyAV's own conversion gives it, whether or not it is resized."""
    for colour in [(100, 90, 180), (150, 170, 100), (80, 128, 128), (120, 60, 150), (200, 110, 140)]:
        frame = av.VideoFrame(128, 96, "yuv420p")
        for plane, value in zip(frame.planes, colour, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = space, span
        expected = frame.to_ndarray(format="rgb24")[20, 20]
        for size in (40, 60, 90):
            got = cut(frame, box=(8, 16, 60, 60), size=size, orientation=UPRIGHT, flip=False)
            assert (got == expected).all()


@pytest.mark.parametrize("format", ["yuv420p", "yuv444p", "yuv420p10le", "gray", "bgra"])
def test_unscaled_box_equals_plain_conversion(format: str) -> None:
    frame = _smooth_frame(format, height=96, width=128)
    plain = frame.to_ndarray(format="rgb24").astype(int)
    got = cut(frame, box=(0, 0, 96, 96), size=96, orientation=UPRIGHT, flip=False)
    difference = np.abs(got - plain[:96, :96])
    assert difference.mean() < (1.0 if format == "yuv420p10le" else 1e-9)
    moved = cut(frame, box=(10, 20, 64, 64), size=64, orientation=UPRIGHT, flip=False)
    assert np.abs(moved - plain[10:74, 20:84]).mean() < 1.0


@pytest.mark.parametrize("format", ["yuv420p", "yuv444p", "rgb24", "gray"])
@pytest.mark.parametrize("size", [48, 60, 51])
def test_flip_mirrors_the_result(format: str, size: int) -> None:
    frame = _smooth_frame(format, height=96, width=128)
    straight = cut(frame, box=(8, 16, 60, 60), size=size, orientation=UPRIGHT, flip=False).copy()
    mirrored = cut(frame, box=(8, 16, 60, 60), size=size, orientation=UPRIGHT, flip=True)
    assert not np.array_equal(straight, mirrored)
    assert np.array_equal(straight[:, ::-1], mirrored)


def _turned(picture: np.ndarray, turn: Orientation) -> np.ndarray:
    picture = picture.swapaxes(0, 1) if turn.transpose else picture
    picture = picture[:, ::-1] if turn.mirror_x else picture
    return picture[::-1] if turn.mirror_y else picture


ALL = (False, True)
TURNS = [Orientation(transpose=t, mirror_x=x, mirror_y=y) for t in ALL for x in ALL for y in ALL]


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: repr(turn).partition("(")[2])
def test_box_of_a_turned_frame(turn: Orientation) -> None:
    """The box counts in the upright frame; the result is that box of the upright frame."""
    frame = _smooth_frame("yuv444p", height=96, width=128)
    upright = _turned(frame.to_ndarray(format="rgb24"), turn).astype(int)
    assert upright.shape[:2] == turn.upright_size(height=96, width=128)
    got = cut(frame, box=(12, 26, 64, 64), size=64, orientation=turn, flip=False)
    assert np.abs(got - upright[12:76, 26:90]).max() <= 1
    mirrored = cut(frame, box=(12, 26, 64, 64), size=64, orientation=turn, flip=True)
    assert np.abs(mirrored - upright[12:76, 26:90][:, ::-1]).max() <= 1


def test_rotation_of_an_orientation() -> None:
    picture = np.arange(6).reshape(2, 3)
    pure = [turn for turn in TURNS if (turn.mirror_x != turn.mirror_y) == turn.transpose]  # no mirroring left
    assert sorted(turn.rotation for turn in pure) == [0, 90, 180, 270]
    for turn in pure:
        assert np.array_equal(_turned(picture, turn), np.rot90(picture, turn.rotation // 90))


def test_box_is_snapped_inside_the_frame() -> None:
    frame = _smooth_frame("yuv420p", height=94, width=126)
    plain = frame.to_ndarray(format="rgb24").astype(int)
    got = cut(frame, box=(31.4, 63.3, 63.6, 63.7), size=64, orientation=UPRIGHT, flip=False)
    assert np.array_equal(got, plain[30:94, 62:126]), "64 rows and columns, at the nearest even place inside"
    whole = cut(frame, box=(-0.4, 0, 94.4, 94.4), size=94, orientation=UPRIGHT, flip=False)
    assert np.array_equal(whole, plain[:94, :94])
    dot = cut(frame, box=(40.2, 40.2, 0.1, 0.1), size=4, orientation=UPRIGHT, flip=False)
    assert np.abs(dot - plain[40, 40]).max() <= 6


def test_graphs_serve_frames_of_many_shapes() -> None:
    """More shapes than graphs are kept, in turns: each still gets its own size and place."""
    frames = {w: _smooth_frame("yuv444p", height=64, width=w, seed=w) for w in range(64, 144, 2)}
    for _ in range(2):
        for width, frame in frames.items():
            plain = frame.to_ndarray(format="rgb24").astype(int)
            for left in (0, 7, width - 32):
                got = cut(frame, box=(16, left, 32, 32), size=32, orientation=UPRIGHT, flip=left == 7)
                expected = plain[16:48, left : left + 32]
                assert np.abs(got - (expected[:, ::-1] if left == 7 else expected)).max() <= 1


def test_shared_formats(shared_data: Path) -> None:
    """Real frames of every pixel format in the shared set, unscaled, equal PyAV's own conversion."""
    formats = set()
    for path in sorted((shared_data / "videos").iterdir()):
        if path.suffix in (".tsv", ".wav"):
            continue
        with av.open(path) as container:
            frame = next(container.decode(container.streams.best("video")))
        formats.add(frame.format.name)
        side = min(frame.height, frame.width) // 2 * 2
        got = cut(frame, box=(0, 0, side, side), size=side, orientation=UPRIGHT, flip=False)
        error = np.abs(got - frame.to_ndarray(format="rgb24")[:side, :side].astype(int))
        exact = "10" not in frame.format.name and frame.height % 2 == 0  # else PyAV takes another way
        assert error.mean() < (1e-9 if exact else 3.0), path.name
    assert formats == {"yuv420p", "yuv420p10le", "bgra"}
