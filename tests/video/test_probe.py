"""What a file holds and whether it is whole: counts from packets and decoding, rates, damage, messages."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from scalefast.video import (
    ClipRecipe,
    ClipSpec,
    VideoError,
    decode_clips,
    load_clips,
    probe,
    sample_clips,
    test_recipe,
    train_recipe,
)
from scalefast.video import _packets as packets_module
from scalefast.video._file import VideoFile
from scalefast.video._tally import Tally

RECIPE = train_recipe(size=32, clips=2)


def test_shared_videos(shared_data: Path, manifest: list[dict[str, str]]) -> None:
    for row in manifest:
        if not row["frames_dec"]:
            continue
        path = shared_data / "videos" / row["name"]
        counted, decoded = probe(path), probe(path, exact=True)
        width, height = map(int, row["WxH"].split("x"))
        if row["rotation"] in ("90", "270"):
            width, height = height, width
        for meta in (counted, decoded):
            assert meta.num_frames == int(row["frames_dec"]), row["name"]
            assert (meta.width, meta.height, meta.rotation) == (width, height, int(row["rotation"]))
            assert meta.fps == pytest.approx(float(row["fps"]), abs=0.01)
            assert meta.stated_frames == int(row["frames_hdr"])
            assert meta.pixel_format == row["pix_fmt"] and meta.container == row["container"]
            assert meta.note == ""
        assert (counted.exact, decoded.exact) == (False, True)


def test_bad_files(bad_files: dict[str, tuple[Path, str, str]]) -> None:
    for what, (path, status, reason) in bad_files.items():
        if status in ("bad", "missing"):
            for read in (probe, lambda path: load_clips(path, RECIPE, seed=0, video_id="x")):
                with pytest.raises(VideoError) as caught:
                    read(path)
                assert caught.value.reason == reason, what
                assert str(caught.value).startswith(f"{path}: {reason}: ") and "\n" not in str(caught.value)
        else:
            meta = probe(path, exact=True)
            assert meta.note == reason, what
            clips, _, _, found = load_clips(path, RECIPE, seed=0, video_id="x")
            assert found == status and clips.std() > 10, what


MESSAGES = {
    "missing": "missing: no such file",
    "zero bytes": "unreadable: the file is empty",
    "text": "unreadable: FFmpeg cannot open it (Invalid data found when processing input)",
    "folder": "unreadable: not a regular file",
    "audio only": "no video: it holds audio only",
    "audio with a cover": "no video: it holds audio only",
    "mp4 without its index": "unreadable: FFmpeg cannot open it (Invalid data found when processing input)",
}


@pytest.mark.parametrize("what", MESSAGES)
def test_messages(bad_files: dict[str, tuple[Path, str, str]], what: str) -> None:
    with pytest.raises(VideoError) as caught:
        probe(bad_files[what][0])
    assert str(caught.value) == f"{bad_files[what][0]}: {MESSAGES[what]}"


def test_messages_of_truncated_files(bad_files: dict[str, tuple[Path, str, str]]) -> None:
    for what, expected in {
        "mp4 cut in half": r"truncated: \d+ of the stated 80 frames are there$",
        "avi cut in half": r"truncated: \d+ of the stated 80 frames are there$",
        "webm cut in half": r"truncated: it ends after [01]\.\d\d of the stated 2\.67 s$",
    }.items():
        with pytest.raises(VideoError, match=expected) as caught:
            probe(bad_files[what][0])
        assert 10 < caught.value.frames < 76


def test_errors_survive_a_pipe(bad_files: dict[str, tuple[Path, str, str]]) -> None:
    with pytest.raises(VideoError) as caught:
        probe(bad_files["avi cut in half"][0])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason, again.frames) == (str(caught.value), "truncated", caught.value.frames)


@pytest.mark.parametrize("share, whole", [(0.985, True), (0.9, False)])
def test_end_that_decides(
    tmp_path: Path,
    numbered_video: Path,
    cut_short: Callable[[Path, float, Path], Path],
    share: float,
    whole: bool,
) -> None:
    """At 95% of the stated frames a cut file is usable, and below it is truncated."""
    path = cut_short(numbered_video, share, tmp_path / "v.mp4")
    if whole:
        meta = probe(path, exact=True)
        assert 0.95 * 90 <= meta.num_frames < 90 and meta.stated_frames == 90
    else:
        with pytest.raises(VideoError, match=r"truncated: \d\d of the stated 90 frames"):
            probe(path)


def test_clips_are_planned_again_where_packets_promise_too_much(
    tmp_path: Path,
    numbered_video: Path,
    cut_short: Callable[[Path, float, Path], Path],
    read_number: Callable[[np.ndarray], int],
) -> None:
    """The last packet of a torn file is there and does not decode; every clip is planned with what does."""
    path = cut_short(numbered_video, 0.985, tmp_path / "v.mp4")
    promised, real = probe(path).num_frames, probe(path, exact=True).num_frames
    assert real < promised < 90
    recipe = ClipRecipe(
        name="all",
        sampling="even",
        clips=1,
        num_frames=90,
        stride=1,
        size=96,
        short_side=(96, 96),
        flip=False,
    )
    clips, positions, meta, status = load_clips(path, recipe, seed=0, video_id="x")
    assert (meta.num_frames, meta.exact, status) == (real, True, "short")
    assert meta.note == "1 packet lost at the end"
    specs = sample_clips(meta, recipe, seed=0, video_id="x")
    assert specs[0].frames[-1] == real - 1
    assert np.array_equal(clips, decode_clips(path, specs)) and positions[0, 6] == pytest.approx(real / 30)


def _overwrite(path: Path, packets: range, *, keep: float, fill: int = 0) -> None:
    """Fill the packets' bytes in a file, all but the first share `keep` of each."""
    with av.open(path) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in packets:
        begin, size = places[number]
        kept = int(keep * size)
        data[begin + kept : begin + size] = bytes([fill]) * (size - kept)
    path.write_bytes(data)


def test_packet_lost_inside_makes_a_file_unreadable(tmp_path: Path, render: Callable[..., Path]) -> None:
    path = render(tmp_path / "v.mp4", frames=80, options={"bf": "0"})
    _overwrite(path, range(40, 41), keep=0)
    with pytest.raises(VideoError, match="unreadable: the decoder fails at 1 of 80 packets") as caught:
        probe(path, exact=True)
    assert caught.value.frames == 79
    with pytest.raises(VideoError, match="unreadable: the decoder fails"):
        load_clips(path, test_recipe(size=32), seed=0, video_id="x")


def test_concealed_damage_is_noted(tmp_path: Path, render: Callable[..., Path]) -> None:
    path = render(tmp_path / "v.mp4", frames=80, options={"bf": "0"})
    _overwrite(path, range(40, 43), keep=0.5, fill=0x55)  # lengths stay right, pictures do not
    meta = probe(path, exact=True)
    assert meta.num_frames == 80
    assert re.fullmatch(r"concealed damage in [1-3] frames?", meta.note)
    loaded = load_clips(path, test_recipe(size=32), seed=0, video_id="x")
    assert loaded.status == "ok" and loaded.meta.note.startswith("concealed damage in ")


def test_nothing_decodes(tmp_path: Path, render: Callable[..., Path]) -> None:
    path = render(tmp_path / "v.mp4", frames=5, options={"bf": "0"})
    _overwrite(path, range(5), keep=0)
    with pytest.raises(VideoError, match="unreadable: no frame can be decoded"):
        probe(path)


def test_sound_that_goes_on_does_not_make_a_video_truncated(tmp_path: Path) -> None:
    """Matroska without tags states one duration for the whole file, here that of the sound."""
    path = tmp_path / "v.mkv"
    with av.open(path, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libvpx", rate=30)
        audio = container.add_stream("libopus", rate=48000, layout="mono")
        video.height, video.width, video.pix_fmt = 64, 64, "yuv420p"
        for number in range(70):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, 48000 * 4, 960):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 48000, start
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    assert probe(path, exact=True).num_frames == 70


def test_rate_that_the_header_gets_wrong(tmp_path: Path, render: Callable[..., Path]) -> None:
    """Frames twice as far apart as the header's rate says: the packets' own times decide."""
    path = tmp_path / "v.mkv"
    plain = render(tmp_path / "plain.mp4", frames=40, options={"bf": "0"})
    with av.open(plain) as source, av.open(path, "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.pts, packet.dts = packet.pts * 2, packet.dts * 2
                packet.duration *= 2
                container.mux(packet)
    meta = probe(path)
    assert meta.num_frames == 40 and meta.fps == pytest.approx(15, rel=0.03)
    assert meta.duration == pytest.approx(40 / 15, rel=0.03)


def test_files_too_large_to_keep(numbered_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = test_recipe(size=32)
    kept = load_clips(numbered_video, recipe, seed=0, video_id="x")
    monkeypatch.setattr(packets_module, "_KEEP_BYTES", 1000)
    with VideoFile(numbered_video) as file:
        assert file.packets.kept is None and file.num_packets == 90
        assert sum(1 for _ in file.frames(Tally())) == 90
        assert sum(1 for _ in file.frames(Tally())) == 90, "a second pass starts anew"
    again = load_clips(numbered_video, recipe, seed=0, video_id="x")
    assert np.array_equal(again.clips, kept.clips) and again.meta == kept.meta


def test_unreadable_for_want_of_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"x")

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(VideoError, match=r"unreadable: FFmpeg cannot open it \(Permission denied\)"):
        probe(path)


def test_edit_list_leaves_out_the_beginning(
    tmp_path: Path, render: Callable[..., Path], plain_frames: Callable[[Path], list[np.ndarray]]
) -> None:
    """A cut without re-encoding keeps packets from the last keyframe on and has players skip them."""
    source, path = render(tmp_path / "whole.mp4", frames=90, options={"bf": "0"}), tmp_path / "cut.mp4"
    with av.open(source) as whole, av.open(path, "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                shift = round(Fraction(20, 30) / packet.time_base)
                packet.stream, packet.pts, packet.dts = stream, packet.pts - shift, packet.dts - shift
                container.mux(packet)
    with VideoFile(path) as file:
        assert (file.num_packets, file.discarded, file.stated_frames) == (70, 20, 90)
    assert len(plain_frames(path)) == 70
    for exact in (False, True):
        meta = probe(path, exact=exact)
        assert meta.num_frames == 70 and meta.fps == pytest.approx(30)
    (clip,) = decode_clips(path, [_whole([0, 69])])
    assert np.array_equal(clip, np.stack([plain_frames(path)[n][:, :96] for n in (0, 69)]))


def _whole(frames: list[int]) -> ClipSpec:
    return ClipSpec(frames=tuple(frames), box=(0, 0, 96, 96), flip=False, size=96, t0=0, t1=1)


def test_strange_file_names(tmp_path: Path, numbered_video: Path) -> None:
    data = numbered_video.read_bytes()
    for name in (b"latin \xfc.mp4", "中文 🎬.mp4".encode(), b"-i.mp4", b"%d?*[a].mp4", b"new\nline.mp4"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
        path.write_bytes(data)
        assert probe(path).num_frames == 90
    with pytest.raises(VideoError, match="missing: no such file"):
        probe(tmp_path / ("x" * 5000 + ".mp4"))
    with pytest.raises(VideoError, match="missing: no such file"):
        probe(tmp_path / "nul\0byte.mp4")
