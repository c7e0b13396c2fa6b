"""Film strips and stills, and where videos are looked for."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from scalefast.errors import DataError, InputError
from scalefast.report.thumbnails import FRAMES, SIDE, VideoFinder, film_strip, jpeg, still


def picture(address: str) -> np.ndarray:
    head, data = address.split(",")
    assert head == "data:image/jpeg;base64"
    with av.open(io.BytesIO(base64.b64decode(data)), format="mjpeg") as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def test_strip_shows_the_video_from_beginning_to_end(case: Any) -> None:
    """The frames brighten: all 12 are shown, in their order; the stripe at the left is cut off in part."""
    strip = picture(film_strip(case.videos / "train" / "03.mp4"))
    assert strip.shape == (SIDE, FRAMES * SIDE, 3)
    right = [strip[:, (index + 1) * SIDE - 20 : (index + 1) * SIDE - 4].mean() for index in range(FRAMES)]
    np.testing.assert_allclose(right, [255 * frame // 12 for frame in range(12)], atol=8)


def test_still_is_the_middle_of_the_video(case: Any) -> None:
    image = picture(still(case.videos / "train" / "03.mp4"))
    assert image.shape == (SIDE, SIDE, 3)
    assert image[:, SIDE - 20 : SIDE - 4].mean() == pytest.approx(255 * 6 // 12, abs=8)


def test_strip_of_some_seconds(case: Any) -> None:
    """12 frames a second: from .5 s to .75 s these are frames 6 to 8, each four times."""
    strip = picture(film_strip(case.videos / "train" / "03.mp4", between=(0.5, 0.75)))
    right = [strip[:, (index + 1) * SIDE - 20 : (index + 1) * SIDE - 4].mean() for index in range(FRAMES)]
    np.testing.assert_allclose(right, [255 * frame // 12 for frame in (6, 7, 8) for _ in range(4)], atol=8)
    behind = picture(film_strip(case.videos / "train" / "03.mp4", between=(40, 50)))
    assert behind[:, SIDE - 20 : SIDE - 4].mean() == pytest.approx(255 * 11 // 12, abs=8)


def test_strip_is_the_same_every_time(case: Any) -> None:
    path = case.videos / "train" / "05.mp4"
    assert film_strip(path) == film_strip(path)


def test_jpeg_is_near_its_image() -> None:
    across = np.linspace(0, 255, 64)
    image = np.stack(np.broadcast_arrays(across[None], across[::-1, None], 128.0), axis=2).astype(np.uint8)
    found = picture("data:image/jpeg;base64," + base64.b64encode(jpeg(image)).decode())
    assert np.abs(found.astype(int) - image).mean() < 4


def test_real_videos(shared_data: Path) -> None:
    for name in ("torchcodec__nasa_13013_rotated.mp4", "torchcodec__testsrc2_odd_height_and_width_vp9.mp4"):
        assert picture(film_strip(shared_data / "videos" / name)).std() > 20


@pytest.mark.parametrize("name", ["mmaction2__test.avi", "torchcodec__testsrc2_vp8.webm"])
def test_truncated_files_show_what_decodes(shared_data: Path, tmp_path: Path, name: str) -> None:
    content = (shared_data / "videos" / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(content[: len(content) // 2])
    try:
        assert picture(film_strip(cut)).shape == (SIDE, FRAMES * SIDE, 3)
    except DataError as error:
        assert str(cut) in str(error)


def test_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("x")
    with pytest.raises(DataError, match=r"text\.mp4: unreadable"):
        film_strip(tmp_path / "text.mp4")


def test_finder_in_a_folder(case: Any) -> None:
    finder = VideoFinder(case.videos)
    assert finder.find("train/07.mp4") == case.videos / "train" / "07.mp4"
    assert finder.find("train/99.mp4") is None


def test_finder_by_a_list(case: Any, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("train/07.mp4 0\ntrain/08.mp4 1\ntrain/99.mp4 1\n")
    finder = VideoFinder(listed, root=case.videos)
    assert finder.find("train/08.mp4") == case.videos / "train" / "08.mp4"
    assert finder.find("train/99.mp4") is None
    assert finder.find("train/05.mp4") is None


def test_finder_of_nothing_knows_absolute_ids_only(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.videos)
    finder = VideoFinder(None)
    assert finder.find(str(case.videos / "train" / "07.mp4")) == case.videos / "train" / "07.mp4"
    assert finder.find("train/07.mp4") is None
    assert not finder.given


def test_absent_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder or list of videos"):
        VideoFinder(tmp_path / "nothing")
