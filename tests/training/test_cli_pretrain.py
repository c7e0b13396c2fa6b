"""`scalefast pretrain`: the promised form, what options mean, and errors in one line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scalefast import FeatureStore
from scalefast.cli import main
from scalefast.cli._online import OnlineOptions
from scalefast.cli.pretrain import Args, build_config
from scalefast.errors import InputError
from scalefast.training import PretrainConfig, k400, load_run, ucf101

SMALL = (
    "--views=4",
    "--hidden-dim=32",
    "--projection-dim=16",
    "--head-dim=64",
    "--target-dim=48",
    "--precision=fp32",
)


def args(**options: object) -> Args:
    return Args(**{"store": Path("s"), "out": Path("nowhere"), **options})  # type: ignore[arg-type]


def test_the_promised_form_trains_and_resumes(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["pretrain", str(store.path), "--out", str(out)]
    assert main([*words, "--epochs", "2", "--seed", "7", *SMALL]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{out}: 2 steps; last line of the log: loss ")
    weights = (out / "model.safetensors").read_bytes()
    assert (load_run(out).config.epochs, load_run(out).config.seed) == (2, 7)
    assert main([*words, "--resume"]) == 0  # the options need not be said again
    assert (out / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "already holds a run: resume it, overwrite it, or choose another folder"),
        (["--resume", "--epochs", "3"], "cannot be resumed: config.epochs was 2 and is now 3"),
        (["--resume", "--overwrite"], "resume and overwrite exclude each other"),
        (["--overwrite", "--epochs", "0"], "epochs must be a whole number of at least 1, not 0"),
        (["--overwrite", "--views", "5"], "two disjoint sets of views=5 need 10"),
        (["--overwrite", "--views", "4", "--bank", "resident", "--bank-memory", "0"], "take bank='stream'"),
    ],
)
def test_errors_are_one_line_and_leave_the_run_alone(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    out = tmp_path / "run"
    assert main(["pretrain", str(store.path), "--out", str(out), "--epochs", "2", *SMALL]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["pretrain", str(store.path), "--out", str(out), *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert expected in told.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_store_that_is_not_there_is_an_error_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(tmp_path / "none"), "--out", str(tmp_path / "runs" / "run")]) == 2
    assert "there is no such feature store" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    assert main(["pretrain", str(tmp_path / "none"), "--out", str(tmp_path / "empty")]) == 2
    assert (tmp_path / "empty").is_dir()  # the user's own, made before


def test_videos_without_a_backbone_say_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos" / "class").mkdir(parents=True)
    assert main(["pretrain", str(tmp_path / "videos"), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert (
        "not a feature store (no store.json in it); to train on videos, name what encodes them: --backbone"
        in told
    )
    assert not (tmp_path / "run").exists()


def test_a_bank_above_its_memory_is_streamed_and_that_is_said(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(store.path), "--epochs", "2", *SMALL]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    assert "streamed" not in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "streamed"), "--bank-memory", "0"]) == 0
    assert "they are streamed from the store, the same batches" in capsys.readouterr().err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "streamed")]
    assert weights[0] == weights[1]


def test_every_field_of_the_configuration_is_an_option() -> None:
    own = {"store", "out", "resume", "overwrite", "device", "bank", "bank_memory", "recipe", "config"}
    fields = {field.name for field in dataclasses.fields(PretrainConfig)}
    of_videos = {field.name for field in dataclasses.fields(OnlineOptions)}
    assert not of_videos & fields
    assert {field.name for field in dataclasses.fields(Args)} == own | fields | of_videos


@pytest.mark.parametrize(
    ("words", "parts"), [([], PretrainConfig().parts), (["--parts", "mean", "time"], ("mean", "time"))]
)
def test_parts_are_those_asked_for_or_the_recipes(
    store: FeatureStore, tmp_path: Path, words: list[str], parts: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    assert main(["pretrain", str(store.path), "--out", str(out), "--epochs=2", *SMALL, *words]) == 0
    assert load_run(out).config.parts == parts


def test_recipe_then_file_then_options(tmp_path: Path) -> None:
    path = tmp_path / "my config.json"
    path.write_bytes(b'\xef\xbb\xbf{"epochs": 50,\r\n"dropout": 0}')
    assert build_config(args()) == k400()
    assert build_config(args(recipe="ucf101", seed=3)) == ucf101().replace(seed=3)
    assert build_config(args(recipe="ucf101", config=path)) == k400().replace(epochs=50, dropout=0)
    assert build_config(args(config=path, epochs=9, dropout=0.5)) == k400().replace(epochs=9, dropout=0.5)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"epoch": 3}', "unknown field 'epoch'; did you mean 'epochs'?"),
        (b"epochs: 3", "is not JSON"),
        (b"\xff\xfe", "the configuration cannot be read"),
        (None, "the configuration cannot be read"),
    ],
)
def test_a_bad_configuration_file_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        build_config(args(config=path))
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_resuming_takes_the_runs_configuration_and_options_on_top(tmp_path: Path) -> None:
    run = {"config": ucf101().replace(seed=5).to_dict(), "model": {}, "store": {}, "versions": {}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert build_config(args(out=tmp_path, resume=True)) == ucf101().replace(seed=5)
    assert build_config(args(out=tmp_path, resume=True, epochs=3)) == ucf101().replace(seed=5, epochs=3)
    assert build_config(args(out=tmp_path, resume=True, recipe="k400")) == k400()


def test_help_names_paper_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--help"]) == 0
    told = capsys.readouterr().out
    for option in ("--out RUN", "--epochs N", "--resume", "--batch-size N", "(512)", "torchrun"):
        assert option in told


def test_an_interrupted_run_says_how_to_go_on(
    store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scalefast.kernels.sample_views", interrupt)
    assert main(["pretrain", str(store.path), "--out", str(tmp_path / "run"), *SMALL]) == 130
    assert (
        f"to go on: scalefast pretrain {store.path} --out {tmp_path / 'run'} --resume"
        in capsys.readouterr().err
    )


def test_torchrun_prints_the_result_once(store: FeatureStore, tmp_path: Path, run_program: Callable) -> None:
    words = ["pretrain", store.path, "--out", tmp_path / "run", "--epochs=1", *SMALL]
    done = run_program("-m", "scalefast", *words, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("1 step; last line of the log") == 1
    assert load_run(tmp_path / "run").finished
