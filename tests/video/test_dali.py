"""DALI's pipeline on the CPU beside PyAV: the same frames and verdicts, nearly the same pixels, nothing lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvidia.dali", reason="DALI is not installed (extra dali)")

from scalefast.errors import InputError, MissingExtraError
from scalefast.video import (
    ClipRecipe,
    VideoEntry,
    VideoError,
    load_clips,
    load_clips_by_dali,
    probe,
    sample_clips,
    train_recipe,
)
from scalefast.video._dali import DaliError, DaliPipeline
from scalefast.video._dali_source import CPU_CODECS, Sample, prepare

RECIPE = train_recipe(size=64, clips=3)
MJPEG = {"codec": "mjpeg", "pixel_format": "yuvj420p"}
WHOLE = ClipRecipe(  # squares of the whole height of a 128x96 video, not resized: the first holds the number
    name="whole",
    sampling="even",
    clips=6,
    spatial_crops=3,
    num_frames=16,
    stride=2,
    size=96,
    short_side=(96, 96),
    flip=False,
)


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((one.astype(np.float64) - other) ** 2), 1e-9))


def _entries(paths: list[Path]) -> list[VideoEntry]:
    return [VideoEntry(id=path.name, path=path) for path in paths]


@pytest.mark.parametrize(
    "name, options",
    [
        ("v.webm", {"codec": "libvpx", "options": {"g": "9", "auto-alt-ref": "1", "lag-in-frames": "16"}}),
        (
            "v.webm",
            {"codec": "libvpx-vp9", "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "20"}},
        ),
        ("v.mkv", MJPEG),
        ("v.mp4", {"options": {"g": "12"}}),
        ("v.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
    ],
    ids=["vp8", "vp9", "mjpeg", "h264 by PyAV", "avi by PyAV"],
)
def test_same_frames_as_pyav(
    tmp_path: Path,
    render: Callable[..., Path],
    read_number: Callable[[np.ndarray], int],
    name: str,
    options: dict,
) -> None:
    path = render(tmp_path / name, frames=70, **options)
    (outcome,) = load_clips_by_dali(_entries([path]), WHOLE, seed=0, device="cpu", workers=1)
    clips, positions, meta, status = outcome.result()
    expected = load_clips(path, WHOLE, seed=0, video_id=path.name)
    specs = sample_clips(meta, WHOLE, seed=0, video_id=path.name)
    assert clips.shape == (6, 16, 96, 96, 3) and status == "ok"
    for clip, spec in zip(clips.numpy()[::3], specs[::3], strict=True):
        assert [read_number(picture) for picture in clip] == list(spec.frames)
    assert np.array_equal(positions, expected.positions)
    assert replace(meta, decoder="pyav") == expected.meta
    assert meta.decoder == ("dali" if meta.codec in CPU_CODECS else "pyav")


def test_resized_clips_of_filmed_videos(shared_data: Path) -> None:
    """38 dB beside PyAV's clips, decoded by PyAV here; the codecs that DALI decodes itself are the next test's."""
    names = [
        "mmaction2__demo.mp4",
        "mmaction2__test.avi",
        "torchcodec__nasa_13013.mp4",
        "torchcodec__nasa_13013_rotated.mp4",
    ]
    paths = [shared_data / "videos" / name for name in names]
    for outcome in load_clips_by_dali(_entries(paths), RECIPE, seed=0, device="cpu", workers=2, batch_size=3):
        path = paths[outcome.index]
        expected = load_clips(path, RECIPE, seed=0, video_id=path.name)
        assert _psnr(outcome.result().clips.numpy(), expected.clips) >= 38, path.name


def test_resized_clips_that_dali_decodes(shared_data: Path) -> None:
    paths = [shared_data / "videos" / f"torchcodec__testsrc2_{codec}.webm" for codec in ("vp8", "vp9")]
    for outcome in load_clips_by_dali(_entries(paths), RECIPE, seed=0, device="cpu", workers=2):
        path = paths[outcome.index]
        loaded = outcome.result()
        expected = load_clips(path, RECIPE, seed=0, video_id=path.name)
        assert loaded.meta.decoder == "dali" and _psnr(loaded.clips.numpy(), expected.clips) >= 38


def test_bad_files_cost_nothing_but_themselves(
    bad_files: dict[str, tuple[Path, str, str]], tmp_path: Path, render: Callable[..., Path]
) -> None:
    """Every entry has its outcome, in order, with the verdict of `load_clips`, and the good ones their clips."""
    good = render(tmp_path / "good.mkv", frames=70, **MJPEG)
    paths = [path for what, (path, _, _) in bad_files.items() for path in (path, good)]
    expected = [one for what, one in bad_files.items() for one in (one, (good, "ok", ""))]
    outcomes = list(
        load_clips_by_dali(_entries(paths), RECIPE, seed=0, device="cpu", workers=2, batch_size=4)
    )
    assert [outcome.index for outcome in outcomes] == list(range(len(paths)))
    for outcome, (path, status, reason) in zip(outcomes, expected, strict=True):
        if status in ("bad", "missing"):
            assert isinstance(outcome.error, VideoError) and outcome.error.reason == reason
        else:
            clips = load_clips(path, RECIPE, seed=0, video_id=path.name).clips
            assert outcome.result().status == status and outcome.result().clips.shape == clips.shape


def test_pipeline_goes_on_after_a_batch_that_fails(tmp_path: Path, render: Callable[..., Path]) -> None:
    path = render(tmp_path / "v.mkv", frames=70, **MJPEG)
    sample = prepare(path, RECIPE, seed=0, video_id="x", codecs=CPU_CODECS)
    pipeline = DaliPipeline(kind="encoded", recipe=RECIPE, gpu=None, batch_size=2)
    for broken in (
        replace(sample, data=sample.data[:200]),  # no video
        replace(
            sample, numbers=sample.numbers + 70
        ),  # frames that are not there, which must not come out black
    ):
        pipeline.start([sample, broken])
        with pytest.raises(DaliError):
            pipeline.collect()
        pipeline.start([sample])
        (clips,) = pipeline.collect()
        assert _psnr(clips.numpy(), load_clips(path, RECIPE, seed=0, video_id="x").clips) > 25


def test_batch_with_a_video_that_dali_refuses(
    tmp_path: Path, render: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is done again video by video, and the one to blame by PyAV, which has the last word."""
    paths = [render(tmp_path / f"{number}.mkv", frames=70 + number, **MJPEG) for number in range(5)]
    real = DaliPipeline.start
    batches = []

    def start(self: DaliPipeline, samples: list[Sample]) -> None:
        batches.append((self.kind, [one.meta.num_frames for one in samples]))
        real(self, [replace(one, data=one.data[:100]) if _is_third(one) else one for one in samples])

    def _is_third(sample: Sample) -> bool:
        return sample.kind == "encoded" and sample.meta.num_frames == 72

    monkeypatch.setattr(DaliPipeline, "start", start)
    outcomes = list(
        load_clips_by_dali(_entries(paths), RECIPE, seed=0, device="cpu", workers=1, batch_size=3)
    )
    assert [outcome.result().meta.decoder for outcome in outcomes] == ["dali", "dali", "pyav", "dali", "dali"]
    alone = [("encoded", [number]) for number in (70, 71, 72)] + [("frames", [72])]
    assert batches == [("encoded", [70, 71, 72]), *alone, ("encoded", [73, 74])]
    for outcome, path in zip(outcomes, paths, strict=True):
        expected = load_clips(path, RECIPE, seed=0, video_id=path.name)
        assert np.array_equal(outcome.result().positions, expected.positions)
        assert _psnr(outcome.result().clips.numpy(), expected.clips) > 25


def test_order_does_not_depend_on_batches_and_workers(tmp_path: Path, render: Callable[..., Path]) -> None:
    paths = [
        render(tmp_path / f"{number}.mkv", frames=66 + number, **options)
        for number, options in enumerate([MJPEG, {}] * 3)
    ]
    one, other = (
        [
            outcome.result()
            for outcome in load_clips_by_dali(_entries(paths), RECIPE, seed=5, device="cpu", **how)
        ]
        for how in ({"workers": 1, "batch_size": 1}, {"workers": 2, "batch_size": 4})
    )
    for first, second, path in zip(one, other, paths, strict=True):
        assert np.array_equal(first.clips.numpy(), second.clips.numpy())
        assert first.meta == second.meta and first.meta.num_frames == probe(path).num_frames


def test_wrong_arguments(numbered_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = _entries([numbered_video])
    with pytest.raises(InputError, match=r"expected 'cpu', 'cuda' or 'cuda:N' as device of DALI, got 'gpu'"):
        next(load_clips_by_dali(entries, RECIPE, seed=0, device="gpu"))
    with pytest.raises(InputError, match="batch_size = 0"):
        next(load_clips_by_dali(entries, RECIPE, seed=0, device="cpu", batch_size=0))
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scalefast\[dali\]'"):
        next(load_clips_by_dali(entries, RECIPE, seed=0, device="cpu"))
