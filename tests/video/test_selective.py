"""Decoding in parts: the very frames of a full pass, from every way to lay out a stream, and no more than needed."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast.video import ClipSpec, decode_clips
from scalefast.video import _decode as decode_module
from scalefast.video import _packets as packets_module
from scalefast.video._file import VideoFile
from scalefast.video._selective import (
    Layout,
    UnexpectedFrameError,
    plan_stretches,
    read_layout,
    selected_frames,
)
from scalefast.video._tally import Tally

FRAMES = 60
OPEN = "open-gop=1:keyint=12:min-keyint=12"
STREAMS = {  # what -> (file name, codec, options, whether it may be entered elsewhere than at its start)
    "one gop": ("v.mp4", "libx264", {}, False),
    "closed gops": ("v.mp4", "libx264", {"g": "12"}, True),
    "closed gops in matroska": ("v.mkv", "libx264", {"g": "12"}, True),
    "open gops": ("v.mp4", "libx264", {"x264-params": OPEN}, True),
    "open gops, pyramid": ("v.mkv", "libx264", {"x264-params": f"{OPEN}:bframes=6:ref=6:weightp=2"}, True),
    "open gops, temporal": ("v.mp4", "libx264", {"x264-params": f"{OPEN}:direct=temporal"}, True),
    "many b-frames": ("v.mp4", "libx264", {"bf": "8", "x264-params": "b-pyramid=strict", "g": "30"}, True),
    "uneven times": ("v.mp4", "libx264", {"g": "12"}, True),
    "uneven times in matroska": ("v.mkv", "libx264", {"x264-params": OPEN}, True),
    "intra": ("v.mp4", "libx264", {"g": "1"}, True),
    "intra refresh": ("v.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=15"}, False),
    "slices": ("v.mp4", "libx264", {"x264-params": "slices=4:keyint=25"}, True),
    "zero latency": ("v.mp4", "libx264", {"tune": "zerolatency", "g": "25"}, True),
    "hevc, open": ("v.mp4", "libx265", {"x265-params": f"{OPEN}:bframes=8:log-level=none"}, True),
    "hevc, closed": ("v.mkv", "libx265", {"x265-params": "open-gop=0:keyint=12:log-level=none"}, True),
    "vp8": ("v.webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"}, True),
    "vp9": ("v.webm", "libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "20"}, True),
    "av1": ("v.mp4", "libsvtav1", {"g": "12", "preset": "12"}, True),
    "mpeg4": ("v.mp4", "mpeg4", {"g": "12", "bf": "2"}, None),
    "avi": ("v.avi", "libx264", {"g": "12"}, None),
    "transport stream": ("v.ts", "libx264", {"g": "12"}, None),
}


@pytest.fixture(scope="module", params=STREAMS)
def stream(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, render: Callable[..., Path]
) -> tuple[Path, bool | None]:
    name, codec, options, enterable = STREAMS[request.param]
    path = tmp_path_factory.mktemp("streams") / name
    uneven = "uneven" in request.param
    return render(path, frames=FRAMES, codec=codec, options=options, uneven=uneven), enterable


def _picture(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")


@pytest.mark.parametrize("kept", [True, False], ids=["from memory", "by seeks"])
def test_parts_equal_a_full_pass(
    stream: tuple[Path, bool | None], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame alone, and many sets of frames, with all that can be left out left out."""
    path, enterable = stream
    if not kept:
        monkeypatch.setattr(packets_module, "_KEEP_BYTES", 0)
    with VideoFile(path) as file:
        full = [_picture(frame) for frame in file.frames(Tally())]
        layout = read_layout(file)
        assert len(full) == FRAMES and (file.packets.kept is not None) == kept
        assert (layout is not None and len(layout.starts) > 1) == bool(enterable)
        if layout is None:
            assert enterable is None
            return
        rng = np.random.default_rng(0)
        chosen = [[number] for number in range(0, FRAMES, 1 if kept else 5)]
        chosen += [list(range(first, FRAMES, step)) for step in (2, 7, 25) for first in (0, 1)]
        chosen += [sorted(rng.choice(FRAMES, size=size, replace=False)) for size in (2, 3, 5, 20)]
        for numbers in chosen:
            tally = Tally()
            got = list(selected_frames(file, layout, numbers, tally))
            assert [number for number, _ in got] == list(numbers)
            assert all(np.array_equal(_picture(frame), full[number]) for number, frame in got), numbers
            assert tally.concealed == 0 and tally.frames <= FRAMES


x264 = st.fixed_dictionaries(
    {
        "keyint": st.integers(4, 30),
        "open-gop": st.sampled_from([0, 1]),
        "bframes": st.integers(0, 8),
        "ref": st.integers(1, 8),
        "b-pyramid": st.sampled_from(["none", "strict", "normal"]),
        "weightp": st.integers(0, 2),
        "direct": st.sampled_from(["spatial", "temporal", "auto"]),
        "interlaced": st.sampled_from([0, 0, 1]),
        "scenecut": st.sampled_from([0, 80]),
        "aud": st.sampled_from([0, 1]),
    }
)


@settings(max_examples=10)
@given(parameters=x264, seed=st.integers(0, 99))
def test_any_h264(
    parameters: dict[str, object],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
    render: Callable[..., Path],
) -> None:
    """Whatever x264 is told."""
    words = ":".join(f"{name}={value}" for name, value in parameters.items())
    path = tmp_path_factory.mktemp("any") / "v.mkv"
    render(path, frames=40, options={"x264-params": words, "preset": "ultrafast"})
    rng = np.random.default_rng(seed)
    with VideoFile(path) as file:
        full = [_picture(frame) for frame in file.frames(Tally())]
        layout = read_layout(file)
        assert layout is not None
        for size in (1, 1, 2, 6):
            numbers = sorted(int(one) for one in rng.choice(40, size=size, replace=False))
            got = list(selected_frames(file, layout, numbers, Tally()))
            assert [number for number, _ in got] == numbers
            assert all(np.array_equal(_picture(frame), full[number]) for number, frame in got)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_change_nothing(tmp_path: Path, render: Callable[..., Path], threads: int) -> None:
    path = render(tmp_path / "v.mp4", frames=FRAMES, options={"g": "12"})
    spec = ClipSpec(frames=(3, 17, 40), box=(0, 0, 96, 96), flip=False, size=96, t0=0, t1=1)
    with av.open(path) as container:
        plain = [_picture(frame)[:, :96] for frame in container.decode(video=0)]
    (clip,) = decode_clips(path, [spec], threads=threads)
    assert np.array_equal(clip, np.stack([plain[number] for number in spec.frames]))


@pytest.mark.parametrize("kept", [True, False], ids=["from memory", "by seeks"])
def test_stretches_without_wanted_frames_are_not_decoded(
    tmp_path: Path, render: Callable[..., Path], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(packets_module, "_KEEP_BYTES", 0)
    path = render(tmp_path / "v.mp4", frames=120, options={"g": "10", "bf": "0"})
    with VideoFile(path) as file:
        layout = read_layout(file)
        assert layout is not None and list(layout.starts) == list(range(0, 120, 10))
        tally = Tally()
        assert [number for number, _ in selected_frames(file, layout, [15, 104], tally)] == [15, 104]
        assert tally.frames == (15 - 10 + 1) + (104 - 100 + 1)


@settings(max_examples=200)
@given(data=st.data())
def test_plans(data: st.DataObject) -> None:
    """Stretches hold what every wanted frame needs, begin at starts, and are apart by more than a restart."""
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    starts = np.cumsum([0, *sizes[:-1]])
    total = sum(sizes)
    ranks = np.concatenate(
        [start + _shuffled_inside(data, size) for start, size in zip(starts, sizes, strict=True)]
    )
    places = np.argsort(ranks)
    layout = Layout(times=np.arange(total), ranks=ranks, reach=np.maximum.accumulate(places), starts=starts)
    wanted = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=1)))
    restart = data.draw(st.integers(0, 12))
    plan = plan_stretches(layout, wanted, restart=restart)
    for stretch in plan:
        assert stretch.begin in starts and stretch.first == ranks[stretch.begin]
    for one, other in itertools.pairwise(plan):
        assert other.begin - one.end > restart
    for number in wanted:
        (own,) = [one for one in plan if one.begin <= places[number] < one.end]
        assert own.first <= number
        assert all(one < own.end for one in places[own.first : number + 1])


def _shuffled_inside(data: st.DataObject, size: int) -> np.ndarray:
    """The frames of one closed group: the first is shown first, the others in any order."""
    return np.array([0, *data.draw(st.permutations(range(1, size)))], dtype=np.int64)


def test_surprises_of_the_decoder_lead_to_a_full_pass(
    numbered_video: Path, monkeypatch: pytest.MonkeyPatch, read_number: Callable[[np.ndarray], int]
) -> None:
    """Packets that promise other frames than the decoder gives are not believed."""
    asked = []

    def lie(file: VideoFile) -> Layout | None:
        asked.append(file)
        layout = read_layout(file)
        assert layout is not None
        return replace(layout, times=np.delete(layout.times, 10))

    monkeypatch.setattr(decode_module, "read_layout", lie)
    spec = ClipSpec(frames=(8, 30, 31), box=(0, 0, 96, 96), flip=False, size=96, t0=0, t1=1)
    (clip,) = decode_clips(numbered_video, [spec])
    assert asked and [read_number(picture) for picture in clip] == [8, 30, 31]


def test_file_that_changes_between_two_readings(
    tmp_path: Path, render: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seek that finds other packets than the first reading is not believed."""
    monkeypatch.setattr(packets_module, "_KEEP_BYTES", 0)
    path = render(tmp_path / "v.mp4", frames=FRAMES, options={"g": "12"})
    with VideoFile(path) as file:
        layout = read_layout(file)
        assert layout is not None
        file.packets.sizes[30] += 1
        with pytest.raises(UnexpectedFrameError):
            list(selected_frames(file, layout, [32], Tally()))


LONG = """
import resource, sys
from scalefast.video import load_clips, train_recipe
from scalefast.video._tally import Tally

counted = []
real = Tally.add
Tally.add = lambda self, frame, **options: (counted.append(1), real(self, frame, **options))[1]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_clips(sys.argv[1], train_recipe(size=32), seed=0, video_id="x")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(counted))
"""


def test_long_video(tmp_path: Path) -> None:
    """16 clips of a video of 160 MB: its memory and its decoding are those of the clips, not of the video."""
    path = tmp_path / "long.mp4"
    frames = _write_long(path, megabytes=160)
    done = subprocess.run([sys.executable, "-c", LONG, str(path)], capture_output=True, text=True, check=True)
    kilobytes, decoded = map(int, done.stdout.split())
    assert path.stat().st_size > 150 << 20 and frames > 5000
    assert kilobytes < 130 << 10  # at most 64 MiB of packets, and what the decoder needs
    assert decoded <= 16 * (64 + 10) + 1


def _write_long(path: Path, *, megabytes: int) -> int:
    """The packets of one short stretch of noise over and over; its number of frames."""
    rng = np.random.default_rng(0)
    frames = 0
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "10", "bf": "0", "qp": "20"})
        stream.height, stream.width, stream.pix_fmt = 144, 192, "yuv420p"
        packets = []
        for number in range(10):
            noise = rng.integers(0, 255, (144, 192, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode(None)
        step = packets[1].pts - packets[0].pts
        contents = [(bytes(packet), packet.is_keyframe) for packet in packets]
        while frames * sum(len(data) for data, _ in contents) / 10 < megabytes << 20:
            for data, is_key in contents:
                packet = av.Packet(data)
                packet.stream, packet.is_keyframe = stream, is_key
                packet.pts = packet.dts = frames * step
                packet.duration, packet.time_base = step, packets[0].time_base
                container.mux(packet)
                frames += 1
    return frames
