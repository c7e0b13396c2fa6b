"""Videos told by when or together with what an object moves: reproducible, moving as their names say, and without a
hint in what has nothing to do with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scalefast.demo import PATTERNS, DemoSet, render_pattern, render_set
from scalefast.demo.dataset import _render_one
from scalefast.demo.patterns import SECONDS
from scalefast.demo.scene import FPS, FRAME_SIZE
from scalefast.errors import InputError
from scalefast.video import VideoList, probe

EACH = {"tempo": 8, "company": 4}  # 48 videos of each pattern


@pytest.fixture(scope="module", params=PATTERNS)
def rendered(request, tmp_path_factory, frames_of):
    """A set on disk: its description, its folder and its videos with the frames of every video."""
    demo = DemoSet(structure=request.param, seed=1, train_per_class=EACH[request.param], test_per_class=1)
    root = render_set(tmp_path_factory.mktemp("patterns") / request.param, demo)
    videos = VideoList.read(root / "train")
    return demo, root, videos, [frames_of(video.path) for video in videos]


def test_pixels_are_a_function_of_seed_split_and_name():
    given = {"seed": 3, "split": "train", "index": 5}
    one = render_pattern("tempo", "moves_in_1_and_3", **given)
    assert one.shape == (FPS * SECONDS, *FRAME_SIZE, 3) and one.dtype == np.uint8
    assert np.array_equal(one, render_pattern("tempo", "moves_in_1_and_3", **given))
    for other in ({"seed": 4}, {"split": "test"}, {"index": 6}):
        assert not np.array_equal(one, render_pattern("tempo", "moves_in_1_and_3", **{**given, **other}))
    with pytest.raises(ValueError, match="unknown class 'slide_spin_apart'"):
        render_pattern("tempo", "slide_spin_apart", **given)


def test_a_set_is_complete_and_its_bytes_are_a_function_of_its_description(rendered, tmp_path):
    demo, root, videos, _ = rendered
    assert videos.classes == tuple(sorted(demo.classes)) and len(videos) == 48
    again = DemoSet(structure=demo.structure, seed=1, train_per_class=EACH[demo.structure], test_per_class=1)
    job = next(again.videos())
    _render_one((again, *job, tmp_path / "a.mp4"))
    assert (tmp_path / "a.mp4").read_bytes() == (root / "train" / job[1] / "train_000.mp4").read_bytes()


def test_quarters_move_as_the_name_says(rendered):
    demo, _, videos, frames = rendered
    names = [videos.classes[video.label] for video in videos]
    moving = np.stack([activity(shown) for shown in frames])
    if demo.structure == "tempo":
        liveliest = np.sort(np.argsort(moving, axis=1)[:, 2:] + 1, axis=1)
        right = [
            name == f"moves_in_{first}_and_{second}"
            for name, (first, second) in zip(names, liveliest, strict=True)
        ]
        assert np.mean(right) > 0.8  # the rest is the camera, or a plain disc that spins
    else:  # together leaves two quarters in which nothing moves
        quietest = moving.min(1) / moving.max(1)
        together = np.array([name.endswith("together") for name in names])
        assert np.median(quietest[together]) < 0.6 * np.median(quietest[~together])


@pytest.mark.parametrize("rendered", ["company"], indirect=True)
def test_the_motions_of_a_pair_are_both_there(rendered, path_of_centre):
    """The centre wanders along x where a slide is part of the pair, and along y where a bounce is."""
    _, _, videos, frames = rendered
    ways = {"slide": [], "bounce": [], "neither": []}
    for video, shown in zip(videos, frames, strict=True):
        y, x = path_of_centre(shown)
        name = videos.classes[video.label]
        ways["slide" if "slide" in name else "neither"].append(x.std())
        ways["bounce" if "bounce" in name else "neither"].append(y.std())
    assert min(np.median(ways["slide"]), np.median(ways["bounce"])) > 3 * np.median(ways["neither"])


def test_length_colour_and_file_size_tell_next_to_nothing(rendered, left_out_accuracy):
    demo, _, videos, frames = rendered
    assert {probe(video.path).num_frames for video in videos} == {SECONDS * FPS}
    labels = np.array([video.label for video in videos])
    colour = np.array([shown.reshape(-1, 3).mean(0) for shown in frames])
    size = np.log([[video.path.stat().st_size] for video in videos])
    brightness = np.array([[shown.mean(), shown.std()] for shown in frames])
    chance = 1 / len(demo.classes)
    most = chance + 3 * (chance * (1 - chance) / len(labels)) ** 0.5
    for hint in (colour, size, brightness):
        assert left_out_accuracy(hint, labels) <= most
    if demo.structure == "company":  # the two ways of a pair, which pauses could betray
        assert left_out_accuracy(size, labels % 2) <= 0.5 + 3 * (0.25 / len(labels)) ** 0.5


def test_the_command_renders_and_refuses(tmp_path):
    done = command(tmp_path / "a", "--structure", "tempo", "--train-per-class", 1, "--test-per-class", 1)
    assert done.returncode == 0 and "12 videos of 6 classes" in done.stdout
    assert json.loads((tmp_path / "a" / "rendered.json").read_text())["structure"] == "tempo"
    other = command(tmp_path / "a", "--structure", "company", "--train-per-class", 1, "--test-per-class", 1)
    assert other.returncode == 2 and other.stderr.startswith("error: ") and "another demo set" in other.stderr
    with pytest.raises(
        InputError, match="structure must be one of order, tempo, company, chapters; got 'chaos'"
    ):
        DemoSet(structure="chaos")


def command(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scalefast.demo", str(folder), *map(str, options)],
        capture_output=True,
        text=True,
    )


def activity(shown: np.ndarray) -> np.ndarray:
    """[4]: how much changes from frame to frame in the middle of each quarter."""
    change = np.abs(np.diff(shown.astype(np.float32), axis=0)).mean((1, 2, 3))
    quarter = len(shown) / 4
    return np.array(
        [np.median(change[int((k + 0.2) * quarter) : int((k + 0.8) * quarter)]) for k in range(4)]
    )
