"""CVRL's configuration and optimisers."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from scalefast.backbones import R3DConfig
from scalefast.cvrl import ClipTraining, CVRLConfig, demo, k400
from scalefast.cvrl.optimizer import LARS, build_optimizer, capture, restore
from scalefast.errors import DataError, InputError


@pytest.mark.parametrize("recipe", [k400, demo])
def test_it_survives_json(recipe):
    config = dataclasses.replace(recipe(), start="videomae-b")
    assert CVRLConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_defaults_are_the_papers():
    config = k400()
    assert (config.encoder.depth, config.encoder.num_frames, config.encoder.stride, config.encoder.size) == (
        "50", 16, 2, 224,
    )  # fmt: skip
    assert (config.temperature, config.hidden_dim, config.hidden_layers, config.projection_dim) == (
        0.1,
        2048,
        3,
        128,
    )
    training = config.training
    assert (training.optimizer, training.learning_rate, training.batch_size, training.epochs) == (
        "sgd",
        0.32,
        1024,
        200,
    )
    assert training.warmup_fraction == 5 / 200 and ClipTraining(epochs=4).warmup_fraction == 0.5
    assert (
        config.views[0].blur == 1.0 and config.views[1].solarise == 0.2 and config.views[0].area == (0.3, 1.0)
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epochs": 0}}, "epochs must be a whole number of at least 1, not 0"),
        ({"training": {"optimizer": "sgdd"}}, "optimizer must be one of"),
        ({"training": {"learning_rate": -1}}, "learning_rate must be a number of at least 0"),
        ({"training": {"momentum": 1.0}}, "momentum < 1"),
        ({"training": {"lr": 0.1}}, r"unknown field training\.lr; known: epochs"),
        ({"encoder": {"depth": "34"}}, "depth must be one of"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"views": [{"area": [0.3, 1.0], "aspect": [0.5, 2.0]}]}, "views must be 2"),
        ({"chunk": 3}, "unknown field chunk"),
    ],
)
def test_bad_fields_are_named(values, message):
    with pytest.raises(InputError, match=message):
        CVRLConfig.from_dict(values)


def test_lars_is_its_formula():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    optimizer = build_optimizer(layer, name="lars", learning_rate=0.5, weight_decay=0.1, momentum=0.9)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(3):
        x = torch.randn(4, 5, dtype=torch.float64)
        optimizer.zero_grad()
        layer(x).pow(2).sum().backward()
        direction = layer.weight.grad + 0.1 * weight
        direction = direction * (0.001 * weight.norm() / direction.norm())
        momentum = [0.9 * momentum[0] + direction, 0.9 * momentum[1] + layer.bias.grad]
        weight, bias = weight - 0.5 * momentum[0], bias - 0.5 * momentum[1]
        optimizer.step()
        torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.bias.detach(), bias, rtol=1e-12, atol=1e-12)


def test_lars_leaves_zero_weights_unscaled():
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    LARS([{"params": [weight]}], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.full((2, 2), -0.1))


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_optimizers_go_on_to_the_bit(name):
    def network():
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        return module, build_optimizer(module, name=name, learning_rate=0.1, weight_decay=0.01, momentum=0.9)

    def steps(module, optimizer, seeds):
        for seed in seeds:
            optimizer.zero_grad()
            module(torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))).pow(3).sum().backward()
            optimizer.step()

    whole, optimizer = network()
    steps(whole, optimizer, range(4))
    first, optimizer = network()
    steps(first, optimizer, range(2))
    kept = {key: tensor.clone() for key, tensor in capture(first, optimizer).items()}
    second, optimizer = network()
    restore(kept, second, optimizer, source="checkpoint")
    steps(second, optimizer, range(2, 4))
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    misfit = {
        key.replace("0.weight", "9.weight") if key.startswith("optimizer") else key: t
        for key, t in kept.items()
    }
    with pytest.raises(DataError, match="fits no weight"):
        restore(misfit, second, optimizer, source="checkpoint")


def test_norms_and_biases_are_not_decayed():
    module = nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8))
    for name in ("sgd", "lars", "adamw"):
        groups = build_optimizer(
            module, name=name, learning_rate=1.0, weight_decay=0.5, momentum=0.9
        ).param_groups
        assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
        assert [p.ndim for group in groups for p in group["params"]] == [5, 1, 1, 1]


def test_an_encoder_says_what_is_wrong():
    with pytest.raises(InputError, match="size must be an integer of at least 16"):
        CVRLConfig(encoder=R3DConfig(size=4))
