"""Long videos told by the order of events: the order is all that differs between classes, the events are there to see,
and the way from files to a judged model on two levels, as docs/evaluation.md gives it."""

from __future__ import annotations

import json
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast import FeatureStore
from scalefast.cli import main
from scalefast.demo import CHAPTERS, DemoSet, render_chapters, render_set
from scalefast.demo.__main__ import main as render
from scalefast.demo.chapters import EVENTS, FPS, draw_schedule
from scalefast.demo.scene import FRAME_SIZE, MOTIONS
from scalefast.errors import InputError
from scalefast.video import VideoList, probe

SECONDS = 24
ROWS = [MOTIONS.index(event) for event in EVENTS]
PULSE = MOTIONS.index("pulse")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A set of short videos on disk: 6 of each class to train on, 1 to test."""
    demo = DemoSet(structure="chapters", seed=1, train_per_class=6, test_per_class=1, seconds=SECONDS)
    return demo, render_set(tmp_path_factory.mktemp("chapters") / "videos", demo)


@pytest.fixture(scope="module")
def shown(rendered, frames_of):
    """The training videos, and every third frame of each."""
    videos = VideoList.read(rendered[1] / "train")
    return videos, [frames_of(video.path)[::3] for video in videos]


def test_pixels_are_a_function_of_seed_split_and_name():
    given = {"seed": 3, "split": "train", "index": 5, "seconds": SECONDS}
    one = render_chapters("slide_bounce_spin", **given)
    assert one.shape == (FPS * SECONDS, *FRAME_SIZE, 3) and one.dtype == np.uint8
    assert np.array_equal(one, render_chapters("slide_bounce_spin", **given))
    for other in ({"seed": 4}, {"split": "test"}, {"index": 6}):
        assert not np.array_equal(one, render_chapters("slide_bounce_spin", **{**given, **other}))
    with pytest.raises(ValueError, match="unknown class 'spin_spin_slide'"):
        render_chapters("spin_spin_slide", **given)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), seconds=st.integers(24, 600), order=st.permutations(EVENTS))
def test_every_event_happens_once_and_in_the_order_of_the_class(seed, seconds, order):
    goes_on = draw_schedule(generator(seed), order=order, frames=FPS * seconds)
    assert goes_on.shape == (len(MOTIONS), FPS * seconds) and goes_on.sum(0).max() == 1
    spans = []
    for event in order:
        (frames,) = np.nonzero(goes_on[MOTIONS.index(event)])
        assert len(frames) == frames[-1] - frames[0] + 1  # without a break
        assert 0.08 * seconds * FPS - 1 <= len(frames) <= 0.12 * seconds * FPS + 1
        spans.append((frames[0], frames[-1]))
    for (start, end), (later, _) in pairwise(spans):
        assert later - end > (1 / 3 - 2 * 0.04 - 0.12) * seconds * FPS - 2  # 20 s of rest in three minutes
        assert (later - start) / FPS > 0.2 * seconds


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), seconds=st.integers(24, 300))
def test_classes_differ_in_the_order_alone(seed, seconds):
    """With the same draws the six orders have the same bouts, and the same three times in which an event goes on; so an
    event lasts as long in one class as in any other, and all that is averaged over time is alike."""
    drawn = [
        draw_schedule(generator(seed), order=order, frames=FPS * seconds) for order in permutations(EVENTS)
    ]
    for goes_on in drawn:
        assert np.array_equal(goes_on[PULSE], drawn[0][PULSE])
        assert np.array_equal(goes_on[ROWS].any(0), drawn[0][ROWS].any(0))
    lasts = np.array([goes_on[ROWS].sum(1) for goes_on in drawn])  # [orders, events]
    for event in lasts.T:
        assert np.array_equal(
            np.sort(event), np.sort(lasts[:, 0])
        )  # each event has each of the three lengths twice


def test_a_set_is_complete_and_its_record_says_what_it_is(rendered):
    demo, root = rendered
    videos = VideoList.read(root / "train")
    assert videos.classes == tuple(sorted(CHAPTERS)) and len(videos) == 36
    assert {probe(video.path).num_frames for video in videos} == {FPS * SECONDS}
    assert probe(videos[0].path).fps == FPS
    record = json.loads((root / "rendered.json").read_text())
    assert (record["structure"], record["seconds"], record["fps"]) == ("chapters", SECONDS, FPS)
    kept = videos[0].path.read_bytes()
    videos[0].path.rename(videos[0].path.with_name(".train_000.mp4.123.tmp"))  # as a killed call leaves it
    render_set(root, demo)
    assert videos[0].path.read_bytes() == kept and len(VideoList.read(root / "train")) == 36


def test_the_events_can_be_seen_in_their_order(shown, path_of_centre):
    """In the third of the video that a slide has, the centre wanders along x more than in the other two."""
    right = []
    for video, frames in zip(*shown, strict=True):
        y, x = path_of_centre(frames)
        order = video.path.parent.name.split("_")
        for axis, event in ((x, "slide"), (y, "bounce")):
            wandering = [third.std() for third in np.array_split(axis, 3)]
            right.append(int(np.argmax(wandering)) == order.index(event))
    assert np.mean(right) > 0.85


def test_length_colour_brightness_and_file_size_tell_next_to_nothing(shown, left_out_accuracy):
    videos, frames_of_all = shown
    labels = np.array([video.label for video in videos])
    hints = {
        "colour": np.array([frames.reshape(-1, 3).mean(0) for frames in frames_of_all]),
        "brightness": np.array([[frames.mean(), frames.std()] for frames in frames_of_all]),
        "size": np.log([[video.path.stat().st_size] for video in videos]),
        "motion": np.array(
            [[np.abs(np.diff(frames.astype(np.float32), axis=0)).mean()] for frames in frames_of_all]
        ),
    }
    most = 1 / 6 + 3 * (5 / 36 / len(labels)) ** 0.5
    found = {name: left_out_accuracy(hint, labels) for name, hint in hints.items()}
    assert max(found.values()) <= most, found


def test_lengths_that_cannot_be_are_refused(tmp_path, monkeypatch, capsys):
    assert DemoSet(structure="chapters") == DemoSet(structure="chapters", seconds=180)
    with pytest.raises(InputError, match="last 24 seconds or more; got 23"):
        DemoSet(structure="chapters", seconds=23)
    with pytest.raises(InputError, match="videos of structure order last 8 seconds; got 60"):
        DemoSet(seconds=60)
    words = ["demo", str(tmp_path / "v"), "--structure", "tempo", "--seconds", "30"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(InputError, match="structure tempo last 10 seconds; got 30"):
        render()
    assert not (tmp_path / "v").exists()


def test_from_files_to_a_judged_model_on_two_levels(rendered, tmp_path):
    """The commands of docs/evaluation.md, small: every video once through the backbone, times in seconds throughout."""
    _, root = rendered
    clips = [
        "--temporal",
        "24",
        "--spatial",
        "1",
        "--backbone",
        "r3d-tiny",
        "--positions",
        "seconds",
        "--quiet",
    ]
    for part, subset in (("train", "train"), ("test", "test")):
        long = str(tmp_path / f"{part}.store")
        command("extract", str(root), "--split", "test", "--subset", subset, *clips, "--out", long)
    store = FeatureStore.open(tmp_path / "train.store")
    assert store.features.shape == (36, 24, 256)
    starts = store.positions[0][:, 5]
    assert bool((starts.diff() > 0.8).all()) and 20 < float(starts[-1]) < SECONDS

    small = ["--recipe", "recommended", "--epochs", "2", "--hidden-dim", "32", "--projection-dim", "32"]
    small += ["--head-dim", "64", "--target-dim", "64", "--batch-size", "18"]
    long, run = str(store.path), str(tmp_path / "level-1")
    command("windows", long, "--clips", "4", "--out", str(tmp_path / "windows.store"))
    command("pretrain", str(tmp_path / "windows.store"), "--out", run, *small, "--views", "2")
    for part in ("train", "test"):
        long, segments = str(tmp_path / f"{part}.store"), str(tmp_path / f"{part}-segments.store")
        command("windows", long, "--clips", "4", "--run", run, "--out", segments)
    joined = FeatureStore.open(tmp_path / "train-segments.store")
    assert joined.features.shape == (36, 6, 2 * 256 + (2 + 3) * 32 + 15)
    assert (
        joined.positions[0][0, 5] == 0 and 20 < float(joined.positions[0][-1, 6]) <= SECONDS
    )  # seconds still

    command("pretrain", str(joined.path), "--out", str(tmp_path / "level-2"), *small, "--views", "3")
    stores = ["--train", str(joined.path), "--test", str(tmp_path / "test-segments.store")]
    command("evaluate", str(tmp_path / "level-2"), *stores, "--out", str(tmp_path / "results.json"))
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"knn", "linear"}
    assert all(
        0 <= value <= 1 and (6 * value) % 1 == pytest.approx(0)
        for row in results.values()
        for value in row.values()
    )


def command(*words: str) -> None:
    assert main(list(words)) == 0


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, 0]))
