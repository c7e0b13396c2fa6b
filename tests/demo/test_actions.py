"""The rendered videos: reproducible, disjoint splits, and really moving as their names say."""

from __future__ import annotations

import numpy as np
import pytest

from scalefast.demo import CLASSES, DemoSet, render_action, render_set, write_video
from scalefast.demo.actions import FPS, FRAME_SIZE, SECONDS
from scalefast.errors import InputError
from scalefast.video import VideoList, probe


def test_pixels_are_a_function_of_seed_split_and_name():
    one = render_action(CLASSES[0], seed=3, split="train", index=5)
    assert one.shape == (FPS * SECONDS, *FRAME_SIZE, 3) and one.dtype == np.uint8
    assert np.array_equal(one, render_action(CLASSES[0], seed=3, split="train", index=5))
    for other in ({"seed": 4}, {"split": "test"}, {"index": 6}):
        assert not np.array_equal(
            one, render_action(CLASSES[0], **{"seed": 3, "split": "train", "index": 5, **other})
        )
    with pytest.raises(ValueError, match="unknown class 'jump'"):
        render_action("jump", seed=0, split="train", index=0)


@pytest.mark.parametrize("name", ["slide_then_bounce", "bounce_then_slide"])
def test_the_first_half_shows_the_first_motion(name):
    """The object's centre wanders along x while it slides and along y while it bounces."""
    video = render_action(name, seed=0, split="train", index=0).astype(np.float32)
    ground = np.median(video, axis=0)
    moved = np.abs(video - ground).sum(-1)
    weight = moved / moved.sum((1, 2), keepdims=True)
    y = (weight * np.arange(FRAME_SIZE[0])[None, :, None]).sum((1, 2))
    x = (weight * np.arange(FRAME_SIZE[1])[None, None, :]).sum((1, 2))
    early, late = slice(0, int(0.4 * len(x))), slice(int(0.6 * len(x)), None)
    slides, bounces = (early, late) if name.startswith("slide") else (late, early)
    assert x[slides].std() > 2 * y[slides].std()
    assert y[bounces].std() > 2 * x[bounces].std()


def test_a_set_on_disk_is_complete_readable_and_resumed(tmp_path):
    demo = DemoSet(train_per_class=1, test_per_class=1)
    root = render_set(tmp_path / "set", demo)
    train = VideoList.read(root / "train")
    assert len(train) == 12 and train.classes == tuple(sorted(CLASSES))
    meta = probe(train[0].path)
    assert (meta.num_frames, meta.height, meta.width, meta.fps) == (FPS * SECONDS, *FRAME_SIZE, FPS)
    before = train[1].path.read_bytes()
    stamp = train[1].path.stat().st_mtime_ns
    train[0].path.unlink()
    render_set(root, demo)
    assert train[0].path.is_file() and train[1].path.stat().st_mtime_ns == stamp
    again = render_set(tmp_path / "again", demo) / train[1].path.relative_to(root)
    assert again.read_bytes() == before


def test_another_folder_or_set_is_refused(tmp_path):
    render_set(tmp_path / "set", demo := DemoSet(train_per_class=1, test_per_class=1))
    with pytest.raises(InputError, match="holds another demo set"):
        render_set(tmp_path / "set", DemoSet(train_per_class=2, test_per_class=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no demo set"):
        render_set(tmp_path / "other", demo)
    (tmp_path / "set" / "rendered.json").write_text("{")
    with pytest.raises(InputError, match=r"rendered\.json: not readable JSON"):
        render_set(tmp_path / "set", demo)
    with pytest.raises(InputError, match="at least one video"):
        DemoSet(train_per_class=0)


def test_a_video_that_cannot_be_finished_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((16, 16, 3), np.uint8)
        raise RuntimeError("renderer broke")

    with pytest.raises(RuntimeError, match="renderer broke"):
        write_video(tmp_path / "a.mp4", frames(), fps=10)
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_give_the_same_bytes(tmp_path):
    """One of the videos that x264's AVX-512 code encoded otherwise from time to time."""
    frames = list(render_action("slide_then_bounce", seed=0, split="test", index=1))
    found = set()
    for _ in range(12):
        write_video(tmp_path / "a.mp4", frames, fps=FPS)
        found.add((tmp_path / "a.mp4").read_bytes())
    assert len(found) == 1
