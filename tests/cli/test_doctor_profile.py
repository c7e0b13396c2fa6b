"""`scalefast doctor --profile`: what limits a user's own run, measured by the code that the run uses."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path

import pytest
import torch

from scalefast import FeatureStore, cli
from scalefast.demo.dataset import write_video
from scalefast.doctor import profile, profile_store, profile_videos
from scalefast.doctor.profile import Profile
from scalefast.training import PretrainConfig

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


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0123, "0.0123 s"), (100.0, "100 s"), (130.0, "2.2 min"), (90000.0, "25.0 h")]
)
def test_durations_can_be_read(seconds: float, expected: str) -> None:
    assert profile._duration(seconds) == expected


def test_a_slow_bank_limits(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips that take 50 ms a batch to read, from a store that is streamed."""
    from scalefast.training.bank import placing

    monkeypatch.setattr(placing, "free_memory", lambda *_, **__: 0.0)
    before = profile_store.profile_store(store.path, config=SMALL, device=torch.device("cpu"))
    real = FeatureStore.take_clips
    monkeypatch.setattr(FeatureStore, "take_clips", lambda *given: (time.sleep(0.05), real(*given))[1])
    found = profile_store.profile_store(store.path, config=SMALL, device=torch.device("cpu"))
    assert "features streamed from the store" in found.circumstances[0]
    assert found.seconds["bank"] >= 0.05 / 8 * 20 * 3 > before.seconds["bank"]
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
    assert found.seconds["step"] >= 0.05 / 8 * 20 * 3
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
    found = profile_videos.profile_videos(videos, backbone=backbone, config=SMALL)
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


def test_nothing_is_left_in_the_working_folder(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    profile_store.profile_store(store.path, config=SMALL, device=torch.device("cpu"), rounds=1)
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
        ("broken", ["--backbone", "r3d-tiny"], "none of the 1 videos that were tried decodes"),
    ],
)
def test_what_cannot_be_profiled_is_one_line(
    source: str, words: list[str], expected: str, store: FeatureStore, videos: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.mp4").write_text("text")
    path = {"videos": videos, "store": store.path}.get(source, tmp_path / source)
    assert cli.main(["doctor", "--profile", str(path), *words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert expected in errors
    assert "Traceback" not in errors
