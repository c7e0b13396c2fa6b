"""A whole run: it learns, it can be repeated to the bit, and it stops where it should."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast import SCALE, FeatureStore, SCALEPretraining, kernels
from scalefast.errors import DataError, InputError, TrainingError
from scalefast.training import PretrainConfig, RunResult, load_run, pretrain, session
from scalefast.training.metrics import metrics_of

REPRODUCIBLE = ("model.safetensors", "config.json", "pretraining.safetensors", "run.json", "log.jsonl")


@pytest.fixture(scope="module")
def finished(
    store: FeatureStore, config: PretrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> RunResult:
    """One finished run for all tests that only look."""
    return pretrain(store, out=tmp_path_factory.mktemp("runs") / "run", config=config, progress=False)


def test_what_a_run_leaves(finished: RunResult, config: PretrainConfig, store: FeatureStore) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {*REPRODUCIBLE, "speed.jsonl", "tensorboard", "checkpoints"}
    assert (finished.steps, finished.resumed_from, finished.is_main) == (12, 0, True)
    run = load_run(finished.folder)
    assert run.finished
    assert run.config == config
    assert [line["step"] for line in run.log()] == [line["step"] for line in run.speed()] == [5, 10, 12]
    assert [line["epoch"] for line in run.log()] == [3, 5, 6]
    assert finished.losses == {name: run.log()[-1][name] for name in metrics_of(config.objective)}
    assert run.record["store"]["videos"] == 25
    assert run.record["store"]["provenance"] == store.provenance
    assert run.record["versions"]["torch"] == torch.__version__


def test_the_weights_load_as_model_and_as_task(finished: RunResult, store: FeatureStore) -> None:
    model, task = SCALE.from_pretrained(finished.folder), load_run(finished.folder).task()
    assert isinstance(task, SCALEPretraining)
    features, positions = store.load()
    assert torch.equal(model(features, positions).video, task.model(features, positions).video)
    assert torch.equal(
        model(features, positions).video, load_run(finished.folder).model()(features, positions).video
    )


def test_nothing_reproducible_names_a_time_a_host_or_a_path(finished: RunResult, store: FeatureStore) -> None:
    for name in ("run.json", "config.json", "log.jsonl"):
        text = (finished.folder / name).read_text()
        assert str(finished.folder.parent) not in text
        assert str(store.path) not in text
    record = json.loads((finished.folder / "run.json").read_text())
    assert set(record) == {"config", "model", "store", "versions"}
    assert set(record["versions"]) == {"scalefast", "torch", "numpy", "python"}


def test_a_second_run_leaves_the_same_bytes_whatever_the_global_generator(
    finished: RunResult, store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    torch.manual_seed(12345)
    before = torch.random.get_rng_state()
    pretrain(store, out=tmp_path / "run", config=config, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in REPRODUCIBLE:
        assert (tmp_path / "run" / name).read_bytes() == (finished.folder / name).read_bytes(), name


def test_another_seed_gives_another_run(
    finished: RunResult, store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    other = pretrain(store, out=tmp_path / "run", config=config.replace(seed=4), progress=False)
    assert other.losses["loss"] != finished.losses["loss"]


def test_it_learns_what_can_be_learnt(
    make_store: Callable[..., FeatureStore], config: PretrainConfig, tmp_path: Path
) -> None:
    """Clips of a video share a vector. Chance: set loss ln 25 with 4% right, MCM loss ln 200."""
    result = pretrain(
        make_store(25), out=tmp_path / "run", progress=False,
        config=config.replace(epochs=80, batch_size=25, learning_rate=3e-3, log_every=10),
    )  # fmt: skip
    last = load_run(result.folder).log()[-1]
    assert last["set_loss"] < 0.2 * math.log(25)
    assert last["mcm_loss"] < 0.7 * math.log(200)
    assert last["set_accuracy"] > 0.95
    assert last["loss"] == pytest.approx((last["set_loss"] + last["mcm_loss"]) / 2, rel=1e-5)


def test_the_first_step_is_the_step_written_by_hand(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    """Loss and weights after one step, from the parts: order, views, task, AdamW with decay on matrices."""
    from scalefast.training.sampler import BatchPlan
    from scalefast.training.state import build_task

    one = config.replace(epochs=1, batch_size=25, weight_decay=0.1, warmup_fraction=0.0)
    result = pretrain(store, out=tmp_path / "run", config=one, progress=False)
    task = build_task(one, feature_dim=16).train()
    rows = BatchPlan(num_videos=25, batch_size=25, epochs=1, seed=3).order(0)
    rng = kernels.RandomState.create(3, step=0, rows=rows)
    losses = task(*kernels.sample_views(*store.load(), rows, views=4, rng=rng), rng=rng)
    losses.loss.backward()
    assert result.losses["loss"] == losses.loss.item()
    trained = load_run(result.folder).task().state_dict()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None
        decay = 0.1 if parameter.ndim > 1 else 0.0
        update = parameter.grad / (
            parameter.grad.abs() + 1e-8
        )  # AdamW's first step: both moments are unbiased
        expected = parameter * (1 - 1e-3 * decay) - 1e-3 * update
        torch.testing.assert_close(trained[name], expected.detach(), atol=2e-7, rtol=1e-5)


def test_clipping_changes_what_is_learnt_and_only_if_asked(
    finished: RunResult, store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    loose = pretrain(store, out=tmp_path / "a", config=config.replace(clip_grad_norm=1e6), progress=False)
    tight = pretrain(store, out=tmp_path / "b", config=config.replace(clip_grad_norm=1e-8), progress=False)
    assert loose.losses == finished.losses
    assert tight.losses["loss"] > finished.losses["loss"]


def test_bf16_trains_and_is_recorded(store: FeatureStore, config: PretrainConfig, tmp_path: Path) -> None:
    result = pretrain(store, out=tmp_path / "run", config=config.replace(precision="bf16"), progress=False)
    run = load_run(result.folder)
    assert run.config.precision == "bf16"
    assert {weight.dtype for weight in run.task().state_dict().values()} == {torch.float32}
    assert run.log()[-1]["loss"] < run.log()[0]["loss"]


def test_auto_precision_is_recorded_as_what_it_meant(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    result = pretrain(
        store, out=tmp_path / "run", config=config.replace(precision="auto", epochs=1), progress=False
    )
    assert load_run(result.folder).config.precision in ("fp32", "bf16")


def test_a_batch_larger_than_the_store_is_the_store_and_what_is_dropped_is_said(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    whole = pretrain(
        store, out=tmp_path / "a", config=config.replace(batch_size=512, epochs=2), progress=False
    )
    assert whole.steps == 2
    assert whole.notes == ("a batch holds all 25 videos of the store (batch_size is 512)",)
    part = pretrain(store, out=tmp_path / "b", config=config.replace(batch_size=24, epochs=1), progress=False)
    assert part.notes == ("25 videos in batches of 24: every epoch leaves out 1, drawn anew each time",)


def poisoned(at: int) -> Callable[..., Any]:
    """A view sampler whose features turn NaN at the 1-based step `at`."""
    real, calls = kernels.sample_views, iter(range(1, 1000))

    def sample(*args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        features, positions = real(*args, **options)
        return (features * float("nan") if next(calls) == at else features), positions

    return sample


def test_a_loss_that_is_not_finite_stops_the_run_by_step_and_names_the_checkpoint(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 7 turns NaN; the last checkpoint is of step 4 and stays so."""
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "sample_views", poisoned(7))
        with pytest.raises(TrainingError) as caught:
            pretrain(store, out=tmp_path / "run", config=config, progress=False)
    good = tmp_path / "run" / "checkpoints" / "step-00000004.safetensors"
    assert "the loss is not finite at step 7 (loss nan" in str(caught.value)
    assert f"Last good checkpoint: {good}." in str(caught.value)
    assert [path.name for path in good.parent.iterdir()] == [good.name]
    assert [line["step"] for line in load_run(tmp_path / "run").log()] == [5]
    assert pretrain(store, out=tmp_path / "run", resume=True, progress=False).resumed_from == 4


def test_weights_that_are_not_finite_are_never_saved(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of step 4 is finite, its update is not: checkpoint 4 would be bad."""
    real = session.build_optimizer

    def breaks_at_four(*args: Any, **options: Any) -> torch.optim.Optimizer:
        optimizer = real(*args, **options)
        steps = iter(range(1, 1000))

        def spoil(*_: Any) -> None:
            if next(steps) == 4:
                optimizer.param_groups[0]["params"][3].data[0, 0] = float("inf")

        optimizer.register_step_post_hook(spoil)
        return optimizer

    monkeypatch.setattr(session, "build_optimizer", breaks_at_four)
    with pytest.raises(TrainingError, match=r"are not finite after step 4: .* none was saved yet"):
        pretrain(store, out=tmp_path / "run", config=config, progress=False)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_existing_run_is_refused_overwritten_or_resumed(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    out, short = tmp_path / "run", config.replace(epochs=1)
    pretrain(store, out=out, config=short, progress=False)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(
        InputError, match="already holds a run: resume it, overwrite it, or choose another folder"
    ):
        pretrain(store, out=out, config=short.replace(seed=9), progress=False)
    with pytest.raises(InputError, match="resume and overwrite exclude each other"):
        pretrain(store, out=out, config=short, resume=True, overwrite=True, progress=False)
    assert (out / "model.safetensors").read_bytes() == before
    (out / "mine.txt").write_text("not the run's")
    pretrain(store, out=out, config=short.replace(seed=9), overwrite=True, progress=False)
    assert (out / "model.safetensors").read_bytes() != before
    assert load_run(out).config.seed == 9
    assert (out / "mine.txt").read_text() == "not the run's"


def test_a_folder_that_is_no_run_is_refused(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match=r"is not empty and holds no run \(run.json\)"):
            pretrain(store, out=tmp_path, config=config, progress=False, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file; a run needs a folder"):
        pretrain(store, out=tmp_path / "thesis.tex", config=config, progress=False)


def test_a_folder_is_written_by_one_process_at_a_time(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    from scalefast.training.run_folder import RunFolder

    with (
        RunFolder(tmp_path / "run").locked(),
        pytest.raises(TrainingError, match="another process is writing"),
    ):
        pretrain(store, out=tmp_path / "run", config=config, progress=False)
    pretrain(store, out=tmp_path / "run", config=config.replace(epochs=1), progress=False)


def test_an_unknown_device_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown device 'gpu'; expected 'cpu', 'cuda' or 'cuda:<number>'"):
        pretrain(store, out=tmp_path / "run", device="gpu")


def test_load_run_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run folder: it has no run.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text('{"config": {}')
    with pytest.raises(DataError, match=r"run.json: not readable JSON"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text('{"config": {"epoch": 1}, "model": {}, "store": {}, "versions": {}}')
    with pytest.raises(InputError, match="unknown field 'epoch'; did you mean 'epochs'"):
        load_run(tmp_path)


def test_lines_of_progress_say_speed_and_time_left(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(store, out=tmp_path / "run", config=config)
    told = capsys.readouterr()
    assert told.out == ""
    last = told.err.splitlines()[-1]
    assert last.startswith("step 12/12  loss ")
    assert all(part in last for part in ("videos/s", "clips/s", "0:00 left"))
