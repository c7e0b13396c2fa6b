"""Two processes under torchrun train what one trains, with negatives across both, and resume to the bit."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from scalefast.backbones import R3D, load_backbone
from scalefast.cvrl import train_cvrl
from scalefast.training.logs import read_log


@pytest.fixture(scope="module")
def runs(videos, config, tmp_path_factory, run_program):
    """(one process's folder, two processes' folder, configuration): group normalisation and a linear head, since batch
    normalisation looks at what each process has."""
    folder = tmp_path_factory.mktemp("ranks")
    config = dataclasses.replace(
        config, encoder=dataclasses.replace(config.encoder, norm="group"), hidden_layers=0
    )
    train_cvrl(videos, out=folder / "one", config=config, workers=1, progress=False)
    done = run_program(
        "torchrun.py",
        videos.source,
        folder / "one" / "scan.csv",
        folder,
        json.dumps(config.to_dict()),
        processes=2,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, config


def test_the_run_is_that_of_one_process(runs):
    folder, config = runs
    for one, two in zip(*(read_log(folder / name / "log.jsonl") for name in ("one", "run")), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["accuracy"] == one["accuracy"]
    start = R3D(config.encoder).state_dict()
    one, two = (load_backbone(folder / name).encoder.state_dict() for name in ("one", "run"))
    for name, value in one.items():
        moved = (value - start[name]).abs().max()
        assert (two[name] - value).abs().max() <= 1e-3 * moved + 1e-8 and (
            moved > 0 or not torch.is_floating_point(value)
        )


def test_resumed_it_is_identical_to_the_bit(runs):
    folder, _ = runs
    for name in ("model.safetensors", "config.json", "log.jsonl", "checkpoints/step-00000006.safetensors"):
        assert (folder / "resumed" / name).read_bytes() == (folder / "run" / name).read_bytes(), name


def test_without_a_ledger_all_processes_refuse(runs):
    folder, _ = runs
    told = [(folder / f"refusal-{rank}.txt").read_text() for rank in (0, 1)]
    assert "scan the list first" in told[0] and told[1].startswith("process 1 stops, since process 0 stopped")
