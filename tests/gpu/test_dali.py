"""NVDEC through DALI beside PyAV: the same frames of every codec it decodes, handed over on the GPU, nothing lost."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="PyAV is not installed (extra video)")
pytest.importorskip("nvidia.dali", reason="DALI is not installed (extra dali)")

import av

from scalefast.video import VideoEntry, VideoError, load_clips, load_clips_by_dali, train_recipe

pytestmark = pytest.mark.large
RECIPE = train_recipe(size=112, clips=4)
CODECS = {
    "h264": ("v.mp4", "libx264", {"g": "30", "bf": "3"}),
    "hevc": ("v.mp4", "libx265", {"x265-params": "open-gop=0:keyint=30:log-level=none"}),
    "vp9": ("v.webm", "libvpx-vp9", {"g": "30", "cpu-used": "8", "deadline": "realtime"}),
    "av1": ("v.mp4", "libsvtav1", {"g": "30", "preset": "12"}),
}


def _picture(number: int) -> np.ndarray:
    """A smooth moving picture [256, 340, 3]."""
    y, x = np.mgrid[0:256, 0:340].astype(np.float32)
    waves = [np.sin((x * (1 + c / 2) + y * (2 - c / 2) + 3 * number) / 29) for c in range(3)]
    return (np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)


def _render(
    path: Path,
    *,
    frames: int = 90,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    uneven: bool = False,
) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width, stream.pix_fmt = 256, 340, "yuv420p"
        steps = 4 if uneven else 1  # of a time unit, from frame to frame
        stream.codec_context.time_base = Fraction(1, 30 * steps)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_picture(number), format="rgb24").reformat(format="yuv420p")
            frame.pts = steps * number + (number * 7 % 3 if uneven else 0)
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _entries(paths: list[Path]) -> list[VideoEntry]:
    return [VideoEntry(id=path.name, path=path) for path in paths]


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((one.astype(np.float64) - other) ** 2), 1e-9))


def _check(loaded, path: Path) -> None:
    """The clips are those of `load_clips`: nearer to them than to the same clips one frame later."""
    expected = load_clips(path, RECIPE, seed=0, video_id=path.name)
    clips = loaded.clips.cpu().numpy()
    assert replace(loaded.meta, decoder="pyav") == expected.meta
    assert np.array_equal(loaded.positions, expected.positions)
    assert _psnr(clips, expected.clips) >= 38
    for clip, own in zip(clips, expected.clips, strict=True):
        apart = [[np.abs(one.astype(int) - other).mean() for other in own] for one in clip]
        assert np.argmin(apart, axis=1).tolist() == list(range(16))


@pytest.mark.parametrize("uneven", [False, True], ids=["even times", "uneven times"])
@pytest.mark.parametrize("what", CODECS)
def test_codecs(cuda: torch.device, tmp_path: Path, what: str, uneven: bool) -> None:
    name, codec, options = CODECS[what]
    path = _render(tmp_path / name, codec=codec, options=options, uneven=uneven)
    (outcome,) = load_clips_by_dali(_entries([path]), RECIPE, seed=0, device="cuda", workers=1)
    loaded = outcome.result()
    assert loaded.meta.decoder == "dali" and loaded.clips.is_cuda and loaded.clips.dtype == torch.uint8
    _check(loaded, path)


def test_video_for_pyav(cuda: torch.device, tmp_path: Path) -> None:
    """What NVDEC does not decode goes through the same pipeline, and onto the GPU, as frames."""
    path = _render(tmp_path / "v.avi", codec="mpeg4", options={"bf": "2"})
    (outcome,) = load_clips_by_dali(_entries([path]), RECIPE, seed=0, device="cuda", workers=1)
    assert outcome.result().meta.decoder == "pyav" and outcome.result().clips.is_cuda
    _check(outcome.result(), path)


def test_bad_files_and_order(cuda: torch.device, tmp_path: Path) -> None:
    good = [_render(tmp_path / f"{number}.mp4", frames=80 + number) for number in range(3)]
    empty, text, damaged = (tmp_path / name for name in ("empty.mp4", "text.mp4", "damaged.mp4"))
    empty.write_bytes(b"")
    text.write_bytes(b"no video\n" * 100)
    data = bytearray(_render(damaged).read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    damaged.write_bytes(data)
    paths = [good[0], empty, good[1], damaged, text, good[2]]
    outcomes = list(load_clips_by_dali(_entries(paths), RECIPE, seed=0, workers=2, batch_size=3))
    assert [outcome.index for outcome in outcomes] == list(range(6))
    for place, path in ((0, good[0]), (2, good[1]), (5, good[2])):
        _check(outcomes[place].result(), path)
    for place in (1, 4):
        error = outcomes[place].error
        assert isinstance(error, VideoError) and error.reason == "unreadable"
    assert outcomes[3].value is not None or isinstance(outcomes[3].error, VideoError)


def test_clips_stay_while_the_next_batch_decodes(cuda: torch.device, tmp_path: Path) -> None:
    """Outcomes that the caller keeps are not overwritten, and work on them on a stream of its own sees them whole."""
    paths = [_render(tmp_path / f"{number}.mp4", frames=70 + number) for number in range(6)]
    stream = torch.cuda.Stream()
    kept, sums = [], []
    for outcome in load_clips_by_dali(_entries(paths), RECIPE, seed=0, workers=2, batch_size=2):
        clips = outcome.result().clips
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            sums.append(clips.float().sum())
        kept.append(clips)
    torch.cuda.synchronize()
    assert [float(total) for total in sums] == [float(clips.float().sum()) for clips in kept]
    assert len({float(total) for total in sums}) == 6
