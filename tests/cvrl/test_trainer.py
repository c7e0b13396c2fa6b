"""A CVRL run: what it leaves, that it learns, that a killed one goes on to the bit, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scalefast.backbones import R3D, load_backbone
from scalefast.cvrl import train_cvrl
from scalefast.cvrl._run import ClipRun
from scalefast.errors import DataError, InputError, TrainingError
from scalefast.training.distributed import World
from scalefast.training.logs import read_log
from scalefast.video import AugmentationRecipe, VideoList

LEFT = (
    "model.safetensors",
    "config.json",
    "run.json",
    "log.jsonl",
    "scan.csv",
    "checkpoints/step-00000006.safetensors",
)
TAKEN_UP_AT = {
    "scan": 0, "step_4": 2, "checkpoint": 2, "before_the_backbone": 6, "after_the_backbone": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(videos, config, tmp_path_factory):
    """The run that was never interrupted."""
    return train_cvrl(
        videos, out=tmp_path_factory.mktemp("runs") / "whole", config=config, workers=2, progress=False
    )


@pytest.fixture(scope="module")
def killed(videos, config, tmp_path_factory, run_program):
    """A folder with a run for every moment at which one was killed."""
    folder = tmp_path_factory.mktemp("killed")
    done = run_program("killed.py", videos.source, folder, json.dumps(config.to_dict()))
    assert done.returncode == 0 and set(done.stdout.split()) == set(TAKEN_UP_AT), done.stderr[-3000:]
    return folder


def assert_same(run, other):
    for name in LEFT:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert not list(run.rglob("*.tmp"))


def test_what_a_run_leaves(whole, config, videos):
    assert (whole.steps, whole.resumed_from) == (6, 0)
    backbone = load_backbone(whole.folder, dtype="fp32")
    assert backbone.encoder.config == config.encoder
    assert backbone.describe()["source"] == {"kind": "cvrl", "videos": 8, "epochs": 3, "seed": 0}
    untrained = dict(R3D(config.encoder).named_parameters())
    moved = [n for n, p in backbone.encoder.named_parameters() if not torch.equal(p, untrained[n])]
    assert len(moved) == len(untrained)
    assert backbone(np.zeros((1, 4, 16, 16, 3), np.uint8)).isfinite().all()
    log = read_log(whole.folder / "log.jsonl")
    assert [line["step"] for line in log] == [2, 4, 6]
    assert {name: log[-1][name] for name in ("loss", "accuracy")} == whole.losses
    with open(whole.folder / "scan.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == [
            "ok"
        ] * 8  # 24 frames are more than 4 of stride 2


@pytest.mark.parametrize("moment", TAKEN_UP_AT)
def test_resumed_after_a_kill_it_is_identical_to_the_bit(moment, killed, whole, videos, config):
    resumed = train_cvrl(videos, out=killed / moment, config=config, resume=True, workers=1, progress=False)
    assert resumed.resumed_from == TAKEN_UP_AT[moment]
    assert_same(killed / moment, whole.folder)
    assert not any("to the bit" in note for note in resumed.notes)


def test_the_loss_falls(videos, config, with_training, tmp_path):
    """Cropped and mirrored alone: the noise behind the squares tells one video from another."""
    view = AugmentationRecipe(area=(0.6, 1.0), aspect=(0.8, 1.25), jitter=0.0, gray=0.0)
    plain = dataclasses.replace(config, views=(view, view), temperature=0.3)
    longer = with_training(
        plain, epochs=40, batch_size=8, optimizer="adamw", learning_rate=0.01, weight_decay=0.0, log_every=8
    )
    run = train_cvrl(videos, out=tmp_path / "run", config=longer, workers=2, progress=False)
    losses = [line["loss"] for line in read_log(run.folder / "log.jsonl")]
    assert losses[-1] < 0.8 * losses[0] and losses[-1] < 0.8 * 2 * math.log(15)  # what no knowledge costs


def test_chunks_change_nothing_where_clips_do_not_meet(videos, config, with_training, tmp_path):
    """Group normalisation: the same run with the activations of three clips at a time, in lars."""
    grouped = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, norm="group"))
    grouped = with_training(grouped, epochs=1, optimizer="lars", learning_rate=1.0)
    weights = []
    for chunk in (None, 3):
        out = tmp_path / str(chunk)
        train_cvrl(
            videos, out=out, config=with_training(grouped, chunk_clips=chunk), workers=1, progress=False
        )
        weights.append(load_backbone(out).encoder.state_dict())
    before = R3D(grouped.encoder).state_dict()
    for name, value in weights[0].items():
        assert (weights[1][name] - value).abs().max() <= 1e-4 * (value - before[name]).abs().max() + 1e-8, (
            name
        )


def test_it_starts_from_a_backbone_of_another_kind(videos, config, with_training, tmp_path, monkeypatch):
    """VideoMAE of random weights, trained a step by AdamW, comes back as a backbone folder."""
    transformers = pytest.importorskip("transformers")
    small = transformers.VideoMAEConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16,
        patch_size=8, num_frames=4,
    )  # fmt: skip
    transformers.VideoMAEModel(small).save_pretrained(tmp_path / "start")
    stated = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "start" / "preprocessor_config.json").write_text(json.dumps(stated))
    own = with_training(config, epochs=1, batch_size=8, optimizer="adamw", learning_rate=1e-3)
    own = dataclasses.replace(own, start=str(tmp_path / "start"))
    train_cvrl(videos, out=tmp_path / "run", config=own, workers=1, progress=False)
    before, after = load_backbone(tmp_path / "start"), load_backbone(tmp_path / "run")
    assert after.spec.architecture == before.spec.architecture
    assert after.mean == (0.5, 0.5, 0.5) and after.weights_hash != before.weights_hash


def test_bad_videos_are_counted_and_left_out(videos, config, with_training, tmp_path):
    shutil.copytree(videos.source, tmp_path / "videos")
    (tmp_path / "videos" / "down" / "broken.mp4").write_bytes(b"no video")
    listed = VideoList.read(tmp_path / "videos")
    run = train_cvrl(
        listed, out=tmp_path / "run", config=with_training(config, epochs=1), workers=1, progress=False
    )
    assert any(note.startswith("9 listed = 8 used + 1 bad or missing (down/broken.mp4") for note in run.notes)
    with pytest.raises(InputError, match="a ledger of another list: 9 rows for 8 videos"):
        train_cvrl(
            videos, out=tmp_path / "other", config=config, ledger=run.folder / "scan.csv", progress=False
        )


def test_a_file_that_breaks_later_stops_the_run(videos, config, whole, tmp_path):
    shutil.copytree(videos.source, tmp_path / "videos")
    listed = VideoList.read(tmp_path / "videos")
    (tmp_path / "videos" / "right" / "v2.mp4").unlink()
    with pytest.raises(DataError, match=r"right/v2\.mp4 could not be decoded in training"):
        train_cvrl(
            listed,
            out=tmp_path / "run",
            config=config,
            ledger=whole.folder / "scan.csv",
            workers=1,
            progress=False,
        )


def test_a_loss_that_is_not_finite_stops_the_run(videos, config, with_training, whole, tmp_path):
    wild = with_training(config, learning_rate=1e30, epochs=9)
    with pytest.raises(TrainingError, match=r"not finite .*(the run stops|smaller learning_rate)"):
        train_cvrl(
            videos,
            out=tmp_path / "run",
            config=wild,
            ledger=whole.folder / "scan.csv",
            workers=1,
            progress=False,
        )


def test_another_configuration_is_not_resumed(videos, config, with_training, whole):
    with pytest.raises(InputError, match=r"cannot be resumed: config\.training\.epochs was 3 and is now 4"):
        train_cvrl(
            videos, out=whole.folder, config=with_training(config, epochs=4), resume=True, progress=False
        )
    with pytest.raises(InputError, match="already holds a run"):
        train_cvrl(videos, out=whole.folder, config=config, progress=False)


def test_unequal_chunks_on_gpus_are_refused(videos, config, with_training, tmp_path):
    task = SimpleNamespace(module=torch.nn.Linear(1, 1))
    world = World(rank=0, size=3, device=torch.device("cuda"))
    with pytest.raises(InputError, match="equal shares of a batch: 4 videos on 3 processes"):
        ClipRun(
            label="cvrl",
            entries=list(videos),
            clips=None,
            task=task,
            training=with_training(config, chunk_clips=2).training,
            world=world,
            folder=tmp_path,
            say=print,
        )
