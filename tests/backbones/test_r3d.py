"""R3D: architecture, initial weights, folders."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from scalefast.backbones import R3D, R3DConfig, load_backbone, load_r3d, save_r3d
from scalefast.backbones import r3d_folder as folder_module
from scalefast.backbones.residual import BasicBlock
from scalefast.errors import DataError, InputError, ScalefastError

SMALL = R3DConfig(depth="10", width=0.125, num_frames=8, size=32)


def clips_for(config: R3DConfig, n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, config.num_frames, config.size, config.size, generator=generator)


def test_r3d_18_is_the_published_network():
    model = R3D()
    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Conv3d)]
    assert shapes[0] == (64, 3, 3, 7, 7)
    assert (
        sum(shape[2:] == (3, 3, 3) for shape in shapes) == 16
        and sum(shape[2:] == (1, 1, 1) for shape in shapes) == 3
    )
    # 33.4 million with the classifier over 400 classes that the paper counts
    assert sum(p.numel() for p in model.parameters()) == 33_166_272
    assert model.feature_dim == 512
    levels = [model.stem(clips_for(R3DConfig(), 1))]
    for stage in model.stages:
        levels.append(stage(levels[-1]))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (64, 16, 56, 56),
        (64, 16, 56, 56),
        (128, 8, 28, 28),
        (256, 4, 14, 14),
        (512, 2, 7, 7),
    ]


@pytest.mark.parametrize(
    ("depth", "width", "parameters"), [("50", 1.0, 31.7), ("101", 1.0, 59.6), ("152", 2.0, 327.7)]
)
def test_cvrls_networks_have_the_published_size(depth, width, parameters, monkeypatch):
    """The paper states 31.7 million parameters for R3D-50 and 328 for R3D-152 (2x)."""
    monkeypatch.setattr(R3D, "reset_parameters", lambda self: None)
    with torch.device("meta"):
        model = R3D(R3DConfig(depth=depth, width=width, size=224))
        levels = [model.stem(torch.empty(1, 3, 16, 224, 224))]
        for stage in model.stages:
            levels.append(stage(levels[-1]))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.05)
    c = int(64 * width)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (c, 8, 56, 56),
        (4 * c, 8, 56, 56),
        (8 * c, 8, 28, 28),
        (16 * c, 8, 14, 14),
        (32 * c, 8, 7, 7),
    ]
    assert model.feature_dim == 32 * c


def test_block_and_pooling_equal_a_plain_computation():
    model = R3D(SMALL).eval()
    pixels = clips_for(SMALL)
    block = model.stages[1][0]
    x = model.stages[0](model.stem(pixels))

    def normed(y: torch.Tensor, norm: nn.BatchNorm3d) -> torch.Tensor:
        statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, var, weight, bias = (s.view(1, -1, 1, 1, 1) for s in statistics)
        return (y - mean) / (var + norm.eps).sqrt() * weight + bias

    for norm in (block.norm1, block.norm2, block.shortcut[1]):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    inner = normed(nn.functional.conv3d(x, block.conv1.weight, stride=2, padding=1), block.norm1).clamp(min=0)
    outer = normed(nn.functional.conv3d(inner, block.conv2.weight, padding=1), block.norm2)
    around = normed(nn.functional.conv3d(x, block.shortcut[0].weight, stride=2), block.shortcut[1])
    torch.testing.assert_close(block(x), (outer + around).clamp(min=0), rtol=1e-4, atol=1e-4)
    last = model.stages[3](model.stages[2](block(x)))
    torch.testing.assert_close(model(pixels), last.flatten(2).mean(2), rtol=1e-5, atol=1e-5)


def test_pyramid_pooling_equals_a_plain_computation():
    config = R3DConfig(
        depth="tiny", stem="motion-energy", norm="group", pooling="pyramid", num_frames=9, size=32
    )
    model = R3D(config).eval()
    pixels = clips_for(config)
    stem = model.stem(pixels)
    first = model.stages[0](stem)
    second = model.stages[1](first)
    peaks = [level.flatten(3).max(3).values.mean(2).add(1e-4).sqrt() for level in (stem, first, second)]
    expected = [peak - peak.sum(1, keepdim=True) / peak.shape[1] for peak in peaks]
    assert model.feature_dim == 64 + 64 + 128
    torch.testing.assert_close(model(pixels), torch.cat(expected, dim=1))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_gradients_in_bf16_are_those_in_fp32(frames):
    """Wrong in torch's own convolution over 2 frames on CPUs that have bf16."""
    block = BasicBlock(16, 16, stride=1, norm="batch")
    x = torch.randn(8, 16, frames, 6, 6, generator=torch.Generator().manual_seed(0))
    gradients = []
    for enabled in (False, True):
        block.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            block(x).float().pow(3).sum().backward()
        gradients.append([block.conv1.weight.grad.clone(), block.conv2.weight.grad.clone()])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() <= 0.2 * one.norm()  # the wrong ones are off by their own size and more


def test_it_trains():
    config = R3DConfig(
        depth="tiny", stem="motion-energy", norm="group", pooling="pyramid", num_frames=8, size=32
    )
    model = R3D(config).train()
    model(torch.zeros(2, 3, 8, 32, 32)).sum().backward()  # nothing moves: the root's slope must stay finite
    model(clips_for(config)).pow(3).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [
        name
        for name, grad in gradients.items()
        if grad is None or not grad.isfinite().all() or not grad.any()
    ] == []


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = R3D(SMALL)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, other = R3D(SMALL), R3D(R3DConfig(**(vars(SMALL) | {"seed": 1})))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert not torch.equal(first.stem[0].weight, other.stem[0].weight)
    weight = first.stages[1][0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.05)  # He


def test_published_weights_do_not_change():
    """A change would part new stores from those of earlier versions: make it under a new name instead."""
    assert (
        load_backbone("r3d-tiny").weights_hash
        == "dd4b9d6f1c6f1de6e500f9c6eb814b4a37270808831c897171f100e34958879d"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": "19"}, r"depth must be one of \('tiny', '10', '18', '50', '101', '152'\), got '19'"),
        ({"stem": "gabor"}, "stem must be one of"),
        ({"width": -1}, "width must be a positive number, got -1"),
        ({"num_frames": 0}, "num_frames must be an integer of at least 1"),
        ({"size": 8}, "size must be an integer of at least 16"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"std": (1, 1)}, "std must be 3 finite numbers"),
        ({"stem": "motion-energy", "num_frames": 6}, "needs at least 7 frames, got self.num_frames = 6"),
        (
            {"stem": "motion-energy", "size": 62},
            "of at least 32 that is divisible by 4, got self.size = 62",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        R3DConfig(**changes)


@pytest.fixture
def saved(tmp_path):
    model = R3D(SMALL)
    for module in model.modules():  # as after training: statistics that are not the initial ones
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean)
    save_r3d(model, tmp_path / "encoder", source={"kind": "cvrl", "epochs": 3})
    return model, tmp_path / "encoder"


def test_round_trip(saved, clips):
    model, folder = saved
    backbone = load_backbone(folder, dtype="fp32")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(p.name for p in folder.parent.iterdir()) == ["encoder"]
    assert backbone.encoder.config == SMALL and backbone.name == "encoder"
    assert backbone.describe()["source"] == {"kind": "cvrl", "epochs": 3}
    batch = clips(backbone, 2)
    assert torch.equal(backbone(batch), model.eval()(backbone.normalize(batch)).detach())


def test_saving_never_overwrites(saved):
    model, folder = saved
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="exists already; a backbone is saved into a new folder"):
        save_r3d(model, folder)
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("step", ["save_file", "replace"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, step):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module if step == "save_file" else os, step, full)
    with pytest.raises(ScalefastError, match=r"cannot write the backbone to .*encoder: .*No space left"):
        save_r3d(R3D(SMALL), tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


def rewritten(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_keys_missing_and_unknown_are_named(saved):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    tensors["stem.9.weight"] = tensors.pop("stem.0.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        DataError, match=r"model\.safetensors: missing stem\.0\.weight; unknown stem\.9\.weight"
    ):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scalefast_backbone": "r4d"}, 'expected "scalefast_backbone": "r3d", found \'r4d\''),
        ({"format_version": 2}, "format_version 2 cannot be read; this scalefast reads version 1"),
        ({"licence": "MIT"}, r"config\.json: unknown licence"),
        ({"architecture": {"depth": "10"}}, "architecture: missing mean, norm, num_frames"),
        ({"architecture": []}, "must be JSON objects"),
        ({"weights_hash": "0" * 64}, "is not the one in config.json, 0000"),
    ],
)
def test_a_header_that_cannot_be_is_refused(saved, change, message):
    _, folder = saved
    rewritten(folder, **change)
    with pytest.raises(InputError, match=message):
        load_backbone(folder)


def test_a_configuration_that_contradicts_the_weights_is_refused(saved):
    model, folder = saved
    rewritten(folder, architecture=model.to_config() | {"width": 0.25})
    with pytest.raises(
        DataError, match=r"stem\.0\.weight is \[8, .*\] torch\.float32, config\.json makes it \[16"
    ):
        load_r3d(folder)
    rewritten(folder, architecture=model.to_config() | {"num_frames": "8"})
    with pytest.raises(DataError, match=r"config\.json: R3D: num_frames must be an integer"):
        load_r3d(folder)


def test_one_flipped_bit_is_noticed(saved):
    _, folder = saved
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1001] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"is not the one in config\.json"):
        load_backbone(folder)
