"""`scalefast doctor --profile`: what limits a user's own run, measured by the code that the run uses."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast import FeatureStore, cli
from scalefast.demo.dataset import write_video
from scalefast.doctor import profile, profile_store, profile_videos
from scalefast.doctor.profile import Profile
from scalefast.training import PretrainConfig
from scalefast.video import VideoList

SMALL = PretrainConfig(
    epochs=3,
    batch_size=8,
    views=2,
    hidden_dim=32,
    projection_dim=16,
    head_dim=32,
    target_dim=32,
    precision="fp32",
)


TOLD = Profile(source="x", circumstances=(), videos=2, epochs=1, seconds={"step": 1.0})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("stores") / "features.store"
    return FeatureStore.create(path, features=torch.randn(20, 16, 12).half())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of the demo and a file that is none."""
    folder = tmp_path_factory.mktemp("videos") / "class"
    folder.mkdir()
    demo = importlib.import_module("scalefast.demo.actions")
    for index in range(2):
        frames = demo.render_action(demo.CLASSES[0], seed=0, split="train", index=index)
        write_video(folder / f"v{index}.mp4", list(frames[:90]), fps=demo.FPS)
    (folder / "no video.mp4").write_text("text\n" * 50)
    return folder.parent


def test_shares_and_limit_follow_from_the_seconds() -> None:
    told = Profile(
        source="x",
        circumstances=(),
        videos=10,
        epochs=2,
        seconds={"decode": 6.0, "backbone": 1.0, "step": 3.0},
    )
    assert told.shares == pytest.approx({"decode": 0.6, "backbone": 0.1, "step": 0.3})
    assert told.limit == "decode"
    text = profile.render_profile(told)
    assert "decode limits this run (60%): extract with more CPU cores" in text
    assert "60.0%" in text
    assert text.startswith("x: 10 videos, 2 epochs\n")
    assert "  together         10 s 100.0%" in text


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0123, "0.0123 s"), (100.0, "100 s"), (130.0, "2.2 min"), (90000.0, "25.0 h")]
)
def test_durations_can_be_read(seconds: float, expected: str) -> None:
    assert profile._duration(seconds) == expected


@given(seconds=st.lists(st.floats(0, 1e7), min_size=4, max_size=4))
def test_shares_sum_to_all_of_the_time(seconds: list[float]) -> None:
    told = Profile(
        source="x",
        circumstances=(),
        videos=1,
        epochs=1,
        seconds=dict(zip(profile.STAGES, seconds, strict=True)),
    )
    assert sum(told.shares.values()) == pytest.approx(1.0 if any(seconds) else 0.0)
    assert told.total == sum(seconds)
    assert told.seconds[told.limit] == max(seconds)


def test_what_no_full_batch_holds_is_not_counted(store: FeatureStore) -> None:
    """20 videos in batches of 8 are two steps an epoch; of 12 one."""
    assert profile_store.trained_on(20, config=SMALL) == 3 * 16
    assert profile_store.trained_on(20, config=SMALL.replace(batch_size=12)) == 3 * 12
    assert profile_store.trained_on(20, config=SMALL.replace(batch_size=512)) == 3 * 20


def test_a_slow_bank_limits(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips that take a quarter of a second a batch to read, from a store that is streamed."""
    from scalefast.training.bank import placing

    monkeypatch.setattr(placing, "free_memory", lambda *_, **__: 0.0)
    before = profile_store.profile_store(store.path, config=SMALL, device=torch.device("cpu"))
    real = FeatureStore.take_clips
    monkeypatch.setattr(FeatureStore, "take_clips", lambda *given: (time.sleep(0.25), real(*given))[1])
    found = profile_store.profile_store(store.path, config=SMALL, device=torch.device("cpu"))
    assert "features streamed from the store" in found.circumstances[0]
    assert found.seconds["bank"] >= 0.25 * 2 * 3 > before.seconds["bank"]
    assert found.limit == "bank"
    assert "--bank resident" in found.advice


def test_a_slow_step_limits(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalefast.pretraining import SCALEPretraining

    real = SCALEPretraining.forward
    monkeypatch.setattr(
        SCALEPretraining, "forward", lambda *given, **more: (time.sleep(0.05), real(*given, **more))[1]
    )
    found = profile_store.profile_store(store.path, config=SMALL, device=torch.device("cpu"))
    assert "features in memory" in found.circumstances[0]
    assert found.seconds["step"] >= 0.05 * 2 * 3
    assert (found.limit, found.videos, found.epochs) == ("step", 20, 3)


def test_a_whole_run_on_videos_has_all_stages(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding slowed to 1 s a video beats three epochs of a small model, cores or not."""
    from scalefast import load_backbone, video

    real = video.load_clips
    monkeypatch.setattr(profile_videos, "cores", lambda: 2)
    monkeypatch.setattr(
        video, "load_clips", lambda *given, **more: (time.sleep(1.0), real(*given, **more))[1]
    )
    backbone = load_backbone("r3d-tiny", device="cpu")
    found = profile_videos.profile_videos(VideoList.read(videos), backbone=backbone, config=SMALL)
    assert tuple(found.seconds) == profile.STAGES
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.videos == 3
    assert found.seconds["decode"] >= 1.0 / 2 * 3
    assert found.limit == "decode"
    assert "2 of 3 videos, 4 clips" in found.circumstances[0]
    assert "1 more did not decode" in found.circumstances[0]


def test_the_verb_prints_a_table_or_json(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "doctor",
        "--profile",
        str(store.path),
        "--batch-size",
        "4",
        "--epochs",
        "2",
        "--precision",
        "fp32",
    ]
    assert cli.main(words) == 0
    assert "limits this run" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["videos"], printed["epochs"]) == (20, 2)
    assert set(printed["shares"]) == {"bank", "step"}
    assert sum(printed["shares"].values()) == pytest.approx(1)
    assert printed["total_seconds"] == pytest.approx(sum(printed["seconds"].values()))


def test_nothing_is_left_in_the_working_folder(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    profile_store.profile_store(store.path, config=SMALL, device=torch.device("cpu"), seconds=0.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "words", "expected"),
    [
        (
            "nowhere",
            [],
            "nowhere: no such file or folder; expected a feature store, a folder of videos or a list",
        ),
        (
            "videos",
            [],
            "is no feature store; to time a run on videos, name what extracts them: --backbone NAME",
        ),
        ("store", ["--backbone", "r3d-tiny"], "is a feature store, which has its features already"),
        ("store", ["--epochs", "0"], "epochs must be a whole number of at least 1, not 0"),
        ("store", ["--root", "x"], "--root is for videos; "),
        ("broken", ["--backbone", "r3d-tiny"], "none of the 2 videos tried decodes"),
        ("one", ["--backbone", "r3d-tiny"], "pretraining contrasts videos and needs at least 2, found 1"),
        ("videos", ["--backbone", "r3d-tiny", "--fold", "1"], "--fold belongs to --dataset"),
    ],
)
def test_what_cannot_be_profiled_is_one_line(
    source: str, words: list[str], expected: str, store: FeatureStore, videos: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "one").mkdir()
    for place in ("broken/x.mp4", "broken/y.mp4", "one/x.mp4"):
        (tmp_path / place).write_text("text")
    path = {"videos": videos, "store": store.path}.get(source, tmp_path / source)
    assert cli.main(["doctor", "--profile", str(path), *words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert expected in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("words", [["--backbone", "r3d-tiny"], ["--epochs", "3"], ["--root", "x"]])
def test_options_of_a_profile_are_not_passed_over(words: list[str], capsys) -> None:
    assert cli.main(["doctor", *words]) == 2
    assert capsys.readouterr().err == f"error: {words[0]} belongs to --profile, which is not given\n"


def test_of_a_source_with_splits_the_training_videos_are_timed(
    videos: Path, tmp_path: Path, monkeypatch
) -> None:
    """As `pretrain` and `extract` take them; `--subset` names another."""
    for split, names in (("train", ("v0", "v1")), ("test", ("v0",))):
        (tmp_path / split / "class").mkdir(parents=True)
        for name in names:
            (tmp_path / split / "class" / f"{name}.mp4").symlink_to(videos / "class" / f"{name}.mp4")
    seen: list[int] = []
    monkeypatch.setattr(
        profile_videos, "profile_videos", lambda listed, **_: seen.append(len(listed)) or TOLD
    )
    words = ["doctor", "--profile", str(tmp_path), "--backbone", "r3d-tiny"]
    for more in ([], ["--subset", "test"], ["--subset", "all"]):
        assert cli.main([*words, *more]) == 0
    assert seen == [2, 1, 3]
