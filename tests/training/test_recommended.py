"""The recommended recipe and the options beside it through the trainer: calibrated, resumable, reproducible."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.calibration import calibrate, with_parts
from scalefast.errors import InputError
from scalefast.evaluation import represent
from scalefast.parts import DEFAULT_PARTS
from scalefast.training import PretrainConfig, load_run, pretrain
from scalefast.training.recipes import RECIPES

FILES = ("model.safetensors", "config.json", "pretraining.safetensors", "log.jsonl")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": "ema", "koleo_weight": 0.1, "variance_weight": 0.1, "same_video": "exclude"},
        {"mcm_weight": 0.0, "position_use": "time"},
        {"set_weight": 0.0, "time_weight": 0.0},
        {"set_weight": 0.0, "mcm_weight": 0.0, "time_weight": 1.0},
    ],
    ids=["recommended", "ema", "set", "mcm", "time"],
)
def test_a_resumed_run_leaves_the_bytes_of_an_uninterrupted_one(
    store: FeatureStore,
    config: PretrainConfig,
    tmp_path: Path,
    options: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {
        name: getattr(config, name) for name in ("epochs", "batch_size", "views", "hidden_dim", "num_layers")
    }
    wanted = RECIPES["recommended"]().replace(
        **small, head_dim=16, target_dim=16, checkpoint_every=4, log_every=2, **options
    )
    pretrain(store, out=tmp_path / "whole", config=wanted, progress=False)
    from scalefast.training.session import Session

    save = Session.save

    def stop(self: Session, step: int) -> None:
        save(self, step)
        if step == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Session, "save", stop)
        pretrain(store, out=tmp_path / "stopped", config=wanted, progress=False)
    result = pretrain(store, out=tmp_path / "stopped", resume=True, progress=False)
    assert result.resumed_from == 8
    for name in FILES:
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    run = load_run(tmp_path / "whole")
    assert run.config.objective == run.task().objective


def test_the_saved_model_is_calibrated_on_its_store(store: FeatureStore, tmp_path: Path) -> None:
    wanted = RECIPES["recommended"]().replace(
        epochs=2, batch_size=11, views=4, hidden_dim=32, head_dim=16, target_dim=16
    )
    pretrain(store, out=tmp_path / "run", config=wanted, progress=False)
    model = SCALE.from_pretrained(tmp_path / "run")
    assert float(model.input_scale) != 1.0 and float(model.part_means.abs().sum()) > 0
    kept = {name: value.clone() for name, value in model.named_buffers()}
    calibrate(model, store)
    assert all(torch.equal(value, kept[name]) for name, value in model.named_buffers())
    assert represent(model, store).recommended.shape == (25, 2 * 16 + (2 + 3) * 32 + 15)


def test_other_parts_for_a_trained_model_are_those_of_training_with_them(
    store: FeatureStore, tmp_path: Path
) -> None:
    wanted = RECIPES["recommended"]().replace(
        epochs=1, batch_size=11, views=4, hidden_dim=32, head_dim=16, target_dim=16
    )
    pretrain(store, out=tmp_path / "with", config=wanted, progress=False)
    pretrain(store, out=tmp_path / "without", config=wanted.replace(parts=["mean", "cls"]), progress=False)
    model = with_parts(SCALE.from_pretrained(tmp_path / "without"), parts=wanted.parts)
    calibrate(model, store)
    expected = SCALE.from_pretrained(tmp_path / "with").state_dict()
    assert {name: value.tolist() for name, value in model.state_dict().items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_parts_of_a_configuration() -> None:
    config = RECIPES["recommended"]()
    assert PretrainConfig.from_json(config.to_json()) == config and isinstance(config.parts, tuple)
    assert PretrainConfig.from_dict({}).parts == DEFAULT_PARTS  # runs of before had these
    with pytest.raises(InputError, match=r"parts must be 'mean' and others of .* got \['cls'\]"):
        config.replace(parts=["cls"])
