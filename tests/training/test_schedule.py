"""Learning rate and AdamW's groups."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast import SCALE, SCALEPretraining
from scalefast.training.schedule import build_optimizer, learning_rate_at, set_learning_rate


def rates(total: int, fraction: float) -> list[float]:
    return [
        learning_rate_at(step, total_steps=total, peak=3e-4, warmup_fraction=fraction)
        for step in range(total)
    ]


def test_values_by_hand() -> None:
    """100 steps, 5 of warm-up: a fifth of the peak a step, then half a cosine over 95."""
    got = rates(100, 0.05)
    assert got[:6] == pytest.approx([0.6e-4, 1.2e-4, 1.8e-4, 2.4e-4, 3e-4, 3e-4])
    assert got[5 + 19] == pytest.approx(3e-4 * (1 + math.cos(math.pi * 19 / 95)) / 2)
    assert got[-1] == pytest.approx(3e-4 * (1 + math.cos(math.pi * 94 / 95)) / 2)


@given(total=st.integers(1, 400), fraction=st.floats(0, 0.99))
def test_it_rises_then_falls_and_is_never_zero(total: int, fraction: float) -> None:
    got = rates(total, fraction)
    top = got.index(max(got))
    assert got[: top + 1] == sorted(got[: top + 1])
    assert got[top:] == sorted(got[top:], reverse=True)
    assert max(got) == pytest.approx(3e-4)
    assert min(got) > 0


def test_weight_decay_leaves_out_biases_norms_and_tokens() -> None:
    task = SCALEPretraining(SCALE(feature_dim=8, hidden_dim=32, num_layers=1), projection_dim=4)
    decayed, plain = build_optimizer(task, learning_rate=1.0, weight_decay=0.5).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    without = {names[id(parameter)] for parameter in plain["params"]}
    assert {"model.cls_token", "model.mask_token", "model.norm.weight", "model.blocks.0.qkv.bias"} <= without
    assert {names[id(parameter)] for parameter in decayed["params"]} | without == set(names.values())
    assert all(name.endswith("weight") and "norm" not in name for name in set(names.values()) - without)


def test_tokens_of_any_shape_are_not_decayed() -> None:
    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.set_cls_token = torch.nn.Parameter(torch.zeros(1, 1, 4))
            self.weight = torch.nn.Parameter(torch.zeros(4, 4))

    module = Tokens()
    decayed, plain = build_optimizer(module, learning_rate=1.0, weight_decay=0.5).param_groups
    assert decayed["params"] == [module.weight]
    assert plain["params"] == [module.set_cls_token]


def test_set_learning_rate_reaches_all_groups() -> None:
    task = SCALEPretraining(SCALE(feature_dim=8, hidden_dim=32, num_layers=1), projection_dim=4)
    optimizer = build_optimizer(task, learning_rate=1.0, weight_decay=0.5)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
