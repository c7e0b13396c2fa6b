"""PretrainConfig: bounds, strict reading, and the paper's values in the recipes."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from scalefast.errors import InputError
from scalefast.training import PretrainConfig, k400, ucf101


def test_defaults_are_the_papers() -> None:
    config = PretrainConfig()
    assert (config.epochs, config.batch_size, config.views) == (200, 512, 8)
    assert (config.learning_rate, config.weight_decay, config.warmup_fraction) == (3e-4, 1e-4, 0.05)
    assert (config.hidden_dim, config.num_layers, config.mlp_ratio, config.dropout) == (256, 2, 2.0, 0.1)
    assert (config.projection_dim, config.head_dim, config.target_dim) == (128, 4096, 2048)
    assert (config.temperature, config.mask_ratio) == (0.2, 0.25)
    assert config.clip_grad_norm is None


def test_recipes_differ_in_epochs_alone() -> None:
    assert k400().epochs == 200
    assert ucf101() == k400().replace(epochs=1000)


def test_it_is_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PretrainConfig().epochs = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        PretrainConfig(3)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("epochs", 0, "epochs must be a whole number of at least 1, not 0"),
        ("epochs", 2.5, "epochs must be a whole number of at least 1, not 2.5"),
        ("epochs", True, "epochs must be a whole number of at least 1, not True"),
        ("epochs", "9", "epochs must be a whole number of at least 1, not '9'"),
        ("epochs", None, "epochs must be a whole number of at least 1, not None"),
        ("batch_size", 1, "batch_size must be a whole number of at least 2, not 1"),
        ("views", 0, "views must be a whole number of at least 1, not 0"),
        ("seed", -1, "seed must be a whole number of at least 0, not -1"),
        ("seed", 2**63, f"seed must be below 2**63, not {2**63}"),
        ("hidden_dim", 48, "hidden_dim must be a multiple of 32, not 48"),
        ("num_layers", 0, "num_layers must be a whole number of at least 1, not 0"),
        ("log_every", 0, "log_every must be a whole number of at least 1, not 0"),
        ("checkpoint_every", 0, "checkpoint_every must be a whole number of at least 1, not 0"),
        ("learning_rate", 0, "learning_rate must be a number > 0, not 0"),
        ("learning_rate", math.nan, "learning_rate must be a number > 0, not nan"),
        ("learning_rate", math.inf, "learning_rate must be a number > 0, not inf"),
        ("weight_decay", -1e-9, "weight_decay must be a number >= 0, not -1e-09"),
        ("warmup_fraction", 1.0, "warmup_fraction must be a number >= 0 and < 1, not 1.0"),
        ("dropout", 1, "dropout must be a number >= 0 and < 1, not 1"),
        ("mask_ratio", 0, "mask_ratio must be a number > 0 and < 1, not 0"),
        ("mask_ratio", "much", "mask_ratio must be a number > 0 and < 1, not 'much'"),
        ("temperature", 0.0, "temperature must be a number > 0, not 0.0"),
        ("mlp_ratio", 0.001, "mlp_ratio 0.001 leaves nothing of the MLP's width at hidden_dim 256"),
        ("clip_grad_norm", 0, "clip_grad_norm must be a number > 0, not 0"),
        ("precision", "fp16", "precision must be 'auto', 'fp32' or 'bf16', not 'fp16'"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        PretrainConfig(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("warmup_fraction", 0), ("dropout", 0), ("weight_decay", 0), ("clip_grad_norm", 1), ("seed", 2**63 - 1)],
)
def test_the_bounds_themselves_are_allowed(field: str, value: int) -> None:
    assert getattr(PretrainConfig(**{field: value}), field) == value  # type: ignore[arg-type]


def test_json_round_trip() -> None:
    config = PretrainConfig(epochs=3, learning_rate=1, clip_grad_norm=2, checkpoint_every=7, precision="bf16")
    assert PretrainConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["learning_rate"] == 1.0


def test_json_may_leave_fields_out() -> None:
    assert PretrainConfig.from_json('{"epochs": 3}') == PretrainConfig(epochs=3)
    assert PretrainConfig.from_json('{"seed": 1}', base=ucf101()) == ucf101().replace(seed=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"learning_rat": 1}', "a.json: unknown field 'learning_rat'; did you mean 'learning_rate'?"),
        ('{"zzz": 1}', "a.json: unknown field 'zzz'; known fields: epochs, batch_size, views,"),
        ('{"epochs": 0}', "a.json: epochs must be a whole number of at least 1, not 0"),
        ("[1]", "a.json must be a JSON object of fields, not list"),
        ("{", "a.json is not JSON: "),
    ],
)
def test_bad_json_is_refused(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        PretrainConfig.from_json(text, source="a.json")
    assert str(caught.value).startswith(expected)


def test_replace_refuses_an_unknown_field() -> None:
    with pytest.raises(InputError, match="unknown field 'batchsize'; did you mean 'batch_size'"):
        k400().replace(batchsize=3)
