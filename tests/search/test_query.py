"""What is asked (files, images, some seconds of a video) and when the answer is like it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast import SCALE, FeatureStore, load_backbone
from scalefast.cli import main
from scalefast.errors import InputError
from scalefast.features import extract
from scalefast.search import Searcher, search
from scalefast.search.moments import nearest_moments
from scalefast.video import VideoList, normalize_positions, train_recipe

FPS = 15


@pytest.fixture(scope="module")
def spliced(films: Any, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A store of long films, of which 01 shows film 0 from second 4 to 8 and other films before and after."""
    folder = tmp_path_factory.mktemp("spliced")
    sources = sorted(films.folder.rglob("*.mp4"), key=lambda path: path.name)
    for name, order in {"00": (1, 2, 3), "01": (4, 0, 5), "02": (3, 5, 2)}.items():
        _concatenate(folder / "videos" / f"{name}.mp4", [sources[i] for i in order], frames=4 * FPS)
    backbone = load_backbone("r3d-tiny", device="cpu", dtype="fp32")
    recipe = train_recipe(num_frames=backbone.num_frames, stride=1, size=backbone.size, clips=16)
    extract(
        VideoList.read(folder / "videos"),
        backbone=backbone,
        out=folder / "store",
        recipe=recipe,
        workers=1,
        progress=False,
    )
    return FeatureStore.open(folder / "store")


def _concatenate(path: Path, sources: list[Path], *, frames: int) -> None:
    """`frames` frames of each source, which is played again from its beginning where it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for source in sources:
            with av.open(str(source)) as film:
                images = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
            for time in range(frames):
                image = av.VideoFrame.from_ndarray(images[time % len(images)], format="rgb24")
                out.mux(stream.encode(image))
        out.mux(stream.encode(None))


def test_moments_are_in_the_seconds_that_show_the_query(films: Any, spliced: FeatureStore) -> None:
    query = films.folder / "left" / "0.mp4"
    found = search(films.model, spliced, query=query, k=3, moments=2, representation="mean", device="cpu")
    best = max((moment for item in found for moment in item.moments), key=lambda moment: moment.similarity)
    home = next(item for item in found if best in item.moments)
    assert home.id == "01.mp4"
    assert 4 <= (best.start + best.end) / 2 <= 8
    assert best.query_start is not None and 0 <= best.query_start < best.query_end <= 24 / FPS + 0.6


def test_seconds_of_a_stored_video(films: Any, spliced: FeatureStore) -> None:
    """Only the clips that lie there, with positions as if they were the whole set."""
    searcher = Searcher(films.model, spliced, device="cpu")
    whole = searcher.query("01.mp4")
    part = searcher.query("01.mp4", between=(4, 8))
    assert whole.times is not None and part.times is not None
    middle = whole.times.mean(1)
    inside = (whole.times[:, 0] >= 4) & (whole.times[:, 1] <= 8)
    assert 0 < len(part.times) < len(whole.times)
    assert int(inside.sum()) <= len(part.times) <= int(((middle >= 4) & (middle <= 8)).sum()) + 1e-9
    rows = [whole.times.tolist().index(time) for time in part.times.tolist()]
    assert torch.equal(part.features, whole.features[rows])
    assert spliced.clips is not None
    raw = spliced.clips[1][rows].float()
    torch.testing.assert_close(part.positions, torch.from_numpy(normalize_positions(raw.numpy())))
    assert {item.id for item in searcher.find(part, k=9)} == {"00.mp4", "02.mp4"}
    with pytest.raises(InputError, match=r"no clip of '01\.mp4' lies between 100 and 101 s; its 16 clips of"):
        searcher.query("01.mp4", between=(100, 101))


def test_seconds_of_a_file_are_a_file_of_those_seconds(
    films: Any, spliced: FeatureStore, tmp_path: Path
) -> None:
    """Frames 15 to 24 of a film, cut by the search, against the same frames written as a film of their own."""
    source = films.folder / "left" / "0.mp4"
    searcher = Searcher(films.model, films.store, device="cpu")
    part = searcher.query(source, between=(1.0, 1.6))
    with av.open(str(source)) as film:
        images = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)][15:24]
    _write_exactly(tmp_path / "0.mp4", images)
    alone = searcher.query(tmp_path / "0.mp4")
    torch.testing.assert_close(part.features, alone.features, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(part.positions, alone.positions, atol=1e-5, rtol=0)
    assert part.times is not None and alone.times is not None
    torch.testing.assert_close(part.times, alone.times + 1, atol=1e-5, rtol=0)


def _write_exactly(path: Path, images: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264rgb", rate=FPS, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "rgb24"
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))


def test_an_image_is_a_video_that_stands_still(films: Any, tmp_path: Path) -> None:
    with av.open(str(films.folder / "right" / "1.mp4")) as film:
        frame = next(film.decode(video=0)).to_ndarray(format="rgb24")
    _write_exactly(tmp_path / "still.mp4", [frame] * 9)
    picture = tmp_path / "still.png"
    _write_png(picture, frame)
    searcher = Searcher(films.model, films.store, device="cpu")
    image, still = searcher.query(picture), searcher.query(tmp_path / "still.mp4")
    torch.testing.assert_close(image.features, still.features, atol=2e-2, rtol=2e-2)
    assert len(searcher.find(image, k=3)) == 3


def _write_png(path: Path, image: np.ndarray) -> None:
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = (
        *image.shape[:2],
        "rgb24",
        Fraction(1, 25),
    )
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


@pytest.mark.parametrize("between", [(3, 3), (5, 2), (-1, 2), (0, float("nan")), (0, float("inf"))])
def test_times_that_make_no_stretch(films: Any, between: tuple[float, float]) -> None:
    searcher = Searcher(films.model, films.store, device="cpu")
    for what in (films.store.ids[0], films.folder / films.store.ids[0]):
        with pytest.raises(InputError, match="expected two times in seconds, 0 <= start < end"):
            searcher.query(what, between=between)


def test_times_behind_the_end_of_a_file(films: Any) -> None:
    with pytest.raises(InputError, match=r"nothing lies between 7 and 9 s; the video lasts 1\.60 s"):
        Searcher(films.model, films.store, device="cpu").query(
            films.folder / films.store.ids[0], between=(7, 9)
        )


def test_a_store_without_seconds_has_no_moments(model: SCALE, store: FeatureStore) -> None:
    assert [item.moments for item in search(model, store, query=store.ids[0], k=2)] == [(), ()]
    with pytest.raises(InputError, match="does not know the seconds of its clips"):
        search(model, store, query=store.ids[0], between=(0, 1))


@given(clips=st.integers(1, 12), asked=st.integers(1, 6), count=st.integers(0, 14), seed=st.integers(0, 9999))
def test_moments_against_brute_force(clips: int, asked: int, count: int, seed: int) -> None:
    """Best pair first; no two moments share half of their union; a clip that is left out shares it with one
    that is better, or there are enough."""
    random = torch.Generator().manual_seed(seed)
    found, query = torch.randn(clips, 5, generator=random), torch.randn(asked, 5, generator=random)
    found, query = (x / x.norm(dim=1, keepdim=True) for x in (found, query))
    start = torch.rand(clips, generator=random) * 3
    times = torch.stack([start, start + 0.5 + torch.rand(clips, generator=random)], dim=1)
    moments = nearest_moments(query, None, found, times, count=count)
    best = {
        (round(float(t[0]), 4), round(float(t[1]), 4)): max(float(f @ q) for q in query)
        for t, f in zip(times, found, strict=True)
    }
    kept = [(moment.start, moment.end) for moment in moments]
    values = [moment.similarity for moment in moments]
    assert values == sorted(values, reverse=True) and len(moments) <= count
    for (a, b), value in zip(kept, values, strict=True):
        assert best[round(a, 4), round(b, 4)] == pytest.approx(value, abs=1e-6)

    def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
        shared = min(one[1], other[1]) - max(one[0], other[0])
        return max(shared, 0) / (max(one[1], other[1]) - min(one[0], other[0]))

    assert all(overlap(a, b) < 0.5 for i, a in enumerate(kept) for b in kept[:i])
    if len(moments) < count:
        for time, value in best.items():
            covered = [v for other, v in zip(kept, values, strict=True) if overlap(time, other) >= 0.5 - 1e-3]
            assert covered and max(covered) >= value - 1e-6


def test_verb_shows_seconds(films: Any, spliced: FeatureStore, tmp_path: Path, capsys: Any) -> None:
    films.model.save_pretrained(tmp_path / "model")
    words = ["search", str(tmp_path / "model"), str(spliced.path), "--query", "01.mp4", "--between", "4", "8"]
    assert main([*words, "--moments", "2", "--json"]) == 0
    items = json.loads(capsys.readouterr().out)
    assert [item["rank"] for item in items] == [1, 2]
    for item in items:
        assert 1 <= len(item["moments"]) <= 2
        for moment in item["moments"]:
            assert 0 <= moment["start"] < moment["end"] <= 12.6
            assert 3.9 <= moment["query_start"] + (moment["query_end"] - moment["query_start"]) / 2 <= 8.1
    assert main(words) == 0
    shown = capsys.readouterr().out
    first = items[0]["moments"][0]
    assert f"{first['start']:.1f}-{first['end']:.1f} s" in shown
    assert main([*words[:-1], "2"]) == 2
    assert "expected two times in seconds" in capsys.readouterr().err
