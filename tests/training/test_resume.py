"""A run that was killed and resumed leaves the bytes of one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scalefast import FeatureStore, kernels
from scalefast.errors import InputError
from scalefast.training import PretrainConfig, RunResult, load_run, pretrain
from scalefast.training.run_folder import RunFolder

SAME = ("model.safetensors", "config.json", "pretraining.safetensors", "run.json", "log.jsonl")
LAST = "checkpoints/step-00000012.safetensors"  # weights and optimiser state
TAKEN_UP_AT = {
    "before_the_record": 0, "step_1": 0, "step_4": 0, "step_5": 4, "step_7": 4, "step_12": 8, "line": 8,
    "first_checkpoint": 0, "second_checkpoint": 4, "before_the_model": 12, "after_the_model": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(store: FeatureStore, config: PretrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The run that was never interrupted."""
    return pretrain(store, out=tmp_path_factory.mktemp("runs") / "whole", config=config, progress=False)


@pytest.fixture(scope="module")
def killed(
    store: FeatureStore,
    config: PretrainConfig,
    tmp_path_factory: pytest.TempPathFactory,
    run_program: Callable,
) -> Path:
    """A folder with a run for every moment at which one was killed."""
    folder = tmp_path_factory.mktemp("killed")
    done = run_program("killed.py", store.path, folder, config.to_json())
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(TAKEN_UP_AT), done.stderr
    return folder


def assert_same_run(run: Path, other: Path) -> None:
    for name in (*SAME, LAST):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert not list(run.rglob("*.tmp"))
    assert {path.name for path in run.iterdir()} == {path.name for path in other.iterdir()}


@pytest.mark.parametrize("moment", TAKEN_UP_AT)
def test_resumed_after_a_kill_it_is_identical_to_the_bit(
    moment: str, killed: Path, whole: RunResult, store: FeatureStore, config: PretrainConfig
) -> None:
    resumed = pretrain(store, out=killed / moment, config=config, resume=True, progress=False)
    assert resumed.resumed_from == TAKEN_UP_AT[moment]
    assert resumed.losses == whole.losses
    assert_same_run(killed / moment, whole.folder)
    assert [line["step"] for line in load_run(killed / moment).speed()] == [5, 10, 12]
    assert not any("to the bit" in note for note in resumed.notes)


@pytest.fixture
def interrupted(whole: RunResult, tmp_path: Path) -> Path:
    """A copy of the whole run as it was after step 8, with the log of a run that had gone further."""
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    for name in ("model.safetensors", "config.json", "pretraining.safetensors", LAST):
        (run / name).unlink()
    return run


def test_without_a_configuration_it_takes_the_runs_own(
    interrupted: Path, whole: RunResult, store: FeatureStore
) -> None:
    resumed = pretrain(store, out=interrupted, resume=True, progress=False)
    assert resumed.resumed_from == 8
    assert_same_run(interrupted, whole.folder)


def test_the_curves_go_on(interrupted: Path, store: FeatureStore) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pretrain(store, out=interrupted, resume=True, progress=False)
    events = accumulator.EventAccumulator(str(interrupted / "tensorboard"))
    events.Reload()
    log = load_run(interrupted).log()
    for name in ("loss", "mcm_loss", "set_loss", "mcm_accuracy", "set_accuracy", "learning_rate"):
        points = events.Scalars(f"pretrain/{name}")
        assert [point.step for point in points] == [5, 10, 12]
        assert [point.value for point in points] == pytest.approx([line[name] for line in log])


def test_a_damaged_newest_checkpoint_is_passed_over_and_said(
    whole: RunResult, store: FeatureStore, tmp_path: Path
) -> None:
    """Of the checkpoints of steps 8 and 12 the later is damaged: the run goes on from 8, to the same end."""
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    damaged = bytearray((run / LAST).read_bytes())
    damaged[-1000] ^= 1
    (run / LAST).write_bytes(damaged)
    resumed = pretrain(store, out=run, resume=True, progress=False)
    assert resumed.resumed_from == 8
    assert any(
        f"{run / LAST} is damaged" in note and "going on from step-00000008" in note for note in resumed.notes
    )
    assert_same_run(run, whole.folder)


def test_a_finished_run_is_resumed_without_a_step(
    whole: RunResult, store: FeatureStore, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    (run / "model.safetensors").unlink()
    resumed = pretrain(store, out=run, resume=True, progress=False)
    assert (resumed.resumed_from, resumed.steps) == (12, 12)
    assert_same_run(run, whole.folder)


def test_resuming_nothing_begins(
    whole: RunResult, store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    begun = pretrain(store, out=tmp_path / "run", config=config, resume=True, progress=False)
    assert begun.resumed_from == 0
    assert_same_run(tmp_path / "run", whole.folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 7}, "config.epochs was 6 and is now 7"),
        (
            {"learning_rate": 2e-3, "seed": 0},
            "config.learning_rate was 0.001 and is now 0.002; config.seed was 3 and is now 0",
        ),
        ({"precision": "bf16"}, "config.precision was 'fp32' and is now 'bf16'"),
    ],
)
def test_another_configuration_is_refused_by_field(
    interrupted: Path, store: FeatureStore, config: PretrainConfig, changes: dict, expected: str
) -> None:
    before = {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as caught:
        pretrain(store, out=interrupted, config=config.replace(**changes), resume=True, progress=False)
    assert str(caught.value) == f"{interrupted} cannot be resumed: {expected}"
    assert {path: path.read_bytes() for path in interrupted.rglob("*") if path.is_file()} == before


def test_another_store_is_refused_by_field(
    interrupted: Path, make_store: Callable[..., FeatureStore]
) -> None:
    with pytest.raises(
        InputError, match=r"cannot be resumed: store.features_crc32 was '\w{8}' and is now '\w{8}'$"
    ):
        pretrain(make_store(seed=1), out=interrupted, resume=True, progress=False)
    with pytest.raises(InputError, match=r"store.videos was 25 and is now 26; store.features_crc32 was"):
        pretrain(make_store(26), out=interrupted, resume=True, progress=False)


def test_of_a_long_provenance_only_what_differs_is_shown(tmp_path: Path) -> None:
    record = {"config": {}, "model": {}, "versions": {}}
    before = {"provenance": {"backbone": {"name": "r3d-tiny", "stride": 4}, "seed": 0, "gone": 1}}
    now = {"provenance": {"backbone": {"name": "r3d-tiny", "stride": 2}, "seed": 0}}
    RunFolder(tmp_path).begin({**record, "store": before}, resuming=False)
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path).begin({**record, "store": now}, resuming=True)
    assert str(caught.value) == (
        f"{tmp_path} cannot be resumed: store.provenance.backbone.stride was 4 and is now 2; "
        "store.provenance.gone was 1 and is now None"
    )


def test_other_circumstances_are_said(
    interrupted: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    resumed = pretrain(store, out=interrupted, resume=True, progress=False)
    assert "not identical to the bit to an uninterrupted run: threads 1 before, 64 now" in resumed.notes


def test_other_kernels_are_said(
    interrupted: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without the C library sums are taken in another order."""
    served = kernels.backend("cpu")
    other = {op: replace(how, implementation="another") for op, how in served.items()}
    monkeypatch.setattr("scalefast.kernels.backend", lambda device=None: other)
    resumed = pretrain(store, out=interrupted, resume=True, progress=False)
    (note,) = (note for note in resumed.notes if note.startswith("not identical to the bit"))
    assert f"'set_attention': '{served['set_attention'].implementation}'" in note and "'another'" in note
