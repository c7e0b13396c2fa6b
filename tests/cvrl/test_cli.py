"""`scalefast cvrl` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalefast import cli
from scalefast.backbones import R3D, R3DConfig, save_r3d
from scalefast.cli import main
from scalefast.features import FeatureStore

SMALL = [
    "--recipe", "k400", "--depth", "tiny", "--width", "0.125", "--num-frames", "4", "--stride", "2", "--size", "16",
    "--epochs", "1", "--batch-size", "4", "--precision", "fp32", "--workers", "1", "--device", "cpu",
]  # fmt: skip


def test_a_backbone_is_trained_and_extracted_with(videos, tmp_path, capsys):
    out = tmp_path / "own"
    assert main(["cvrl", videos.source, "--out", str(out), *SMALL]) == 0
    told = capsys.readouterr()
    assert f"{out}: 2 steps; loss" in told.out and f"--backbone {out} --out STORE" in told.out
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["encoder"]["size"] == 16 and config["training"]["epochs"] == 1
    words = [
        "extract",
        videos.source,
        "--backbone",
        str(out),
        "--out",
        str(tmp_path / "store"),
        "--clips",
        "2",
    ]
    assert main([*words, "--workers", "1", "--quiet", "--device", "cpu"]) == 0
    store = FeatureStore.open(tmp_path / "store")
    assert len(store) == 8 and store.provenance["backbone"]["source"]["kind"] == "cvrl"


def test_resume_takes_the_runs_own_configuration(videos, tmp_path, capsys):
    out = str(tmp_path / "own")
    assert main(["cvrl", videos.source, "--out", out, *SMALL]) == 0
    assert main(["cvrl", videos.source, "--out", out, "--resume", "--workers", "1", "--device", "cpu"]) == 0
    assert "going on after step 2 of 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--depth", "tiny", "--size", "4"], "size must be an integer of at least 16"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1"),
        (["--start", "no-such-backbone"], "no backbone, folder or hub id is named 'no-such-backbone'"),
        (["--ledger", "absent.csv"], "absent.csv: the ledger cannot be read"),
    ],
)
def test_bad_options_are_one_line(videos, tmp_path, capsys, words, message):
    assert main(["cvrl", videos.source, "--out", str(tmp_path / "own"), *SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_finetuning_reads_splits_and_lists_as_the_other_verbs_do(videos, tmp_path, capsys, monkeypatch):
    """One source with splits for both; a list whose paths belong elsewhere; a split by its name."""
    seen = {}

    def caught(backbone, *, train, test, **_):
        seen.update(train=[entry.id for entry in train], test=[entry.id for entry in test])
        raise KeyboardInterrupt

    monkeypatch.setattr("scalefast.cvrl.finetune", caught)
    root, names = Path(videos.source), [entry.id for entry in videos]
    rows = [
        f"{name},{name.split('/')[0]},{'test' if i % 4 == 3 else 'train'}" for i, name in enumerate(names)
    ]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,split", *rows]))
    words = [
        "finetune",
        "r3d-tiny",
        "--train",
        str(tmp_path / "all.csv"),
        "--test",
        str(tmp_path / "all.csv"),
    ]
    words += ["--out", str(tmp_path / "tuned"), "--root", str(root), "--format", "table"]
    assert cli.main(words) == 130
    assert (len(seen["train"]), len(seen["test"])) == (6, 2)
    assert not set(seen["train"]) & set(seen["test"])
    assert cli.main([*words, "--split", "all", "--test-split", "train"]) == 130
    assert (len(seen["train"]), len(seen["test"])) == (8, 6)
    capsys.readouterr()
    assert cli.main([*words, "--test-split", "val"]) == 2
    assert "'val'" in capsys.readouterr().err
    assert cli.main([*words, "--fold", "1"]) == 2
    assert "--fold belongs to --dataset" in capsys.readouterr().err


def test_finetuning_says_its_accuracy(videos, tmp_path, capsys):
    start = tmp_path / "start"
    save_r3d(R3D(R3DConfig(depth="tiny", width=0.125, num_frames=4, stride=2, size=16, norm="group")), start)
    words = [
        "finetune",
        str(start),
        "--train",
        videos.source,
        "--test",
        videos.source,
        "--out",
        str(tmp_path / "tuned"),
    ]
    options = [
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--temporal",
        "1",
        "--spatial",
        "1",
        "--workers",
        "1",
        "--quiet",
    ]
    assert main([*words, *options, "--device", "cpu", "--labels", "0.5"]) == 0
    assert "tuned: 4 labelled videos, 1 step; test accuracy " in capsys.readouterr().out
    assert main([*words, *options, "--labels", "2"]) == 2
    assert "label_share must be above 0 and at most 1, not 2.0" in capsys.readouterr().err
