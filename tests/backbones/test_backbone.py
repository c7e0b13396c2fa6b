"""FrozenBackbone: checks its input, never trains, describes itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from scalefast._precision import resolve_precision
from scalefast.backbones import BackboneSpec, FrozenBackbone, load_backbone
from scalefast.errors import InputError

SPEC = BackboneSpec(
    name="small",
    architecture="Small",
    feature_dim=6,
    num_frames=3,
    stride=2,
    size=8,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.5),
    pooling="mean",
)


class Small(nn.Module):
    """One convolution, dropout and batch normalisation: whatever depends on train mode shows."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv3d(3, 6, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.norm = nn.BatchNorm3d(6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(self.conv(pixels))).mean((2, 3, 4))


@pytest.fixture
def small() -> FrozenBackbone:
    return FrozenBackbone(Small(), spec=SPEC, dtype="fp32")


def test_equals_the_stated_formula(small, clips):
    batch = clips(small, 5)
    pixels = (
        batch.double().permute(0, 4, 1, 2, 3) / 255 - torch.tensor(SPEC.mean).view(3, 1, 1, 1)
    ) / torch.tensor(SPEC.std).view(3, 1, 1, 1)
    conv = small.encoder.conv
    rows = (
        nn.functional.conv3d(pixels, conv.weight.double(), conv.bias.double()).mean((2, 3, 4))
        / (1 + 1e-5) ** 0.5
    )
    features = small(batch)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.double(), rows, rtol=1e-5, atol=1e-5)


def test_stays_in_eval_mode_whatever_is_called(small, clips):
    batch = clips(small, 4)
    expected = small(batch)
    statistics = small.encoder.norm.running_mean.clone()
    assert small.train() is small and not small.training and not small.encoder.dropout.training
    nn.Sequential(small).train()
    assert torch.equal(small(batch), expected)
    small.encoder.train()  # even past the wrapper
    assert torch.equal(small(batch), expected)
    assert torch.equal(small.encoder.norm.running_mean, statistics)


def test_no_gradient_in_or_out(small, clips):
    assert [p for p in small.parameters() if p.requires_grad] == []
    features = small(clips(small, 2))
    assert not features.requires_grad
    head = nn.Linear(6, 2)
    head(features).sum().backward()  # an inference-mode tensor could not be used so
    assert head.weight.grad is not None


def test_takes_arrays_writable_or_not(small, clips, recwarn):
    batch = clips(small, 3)
    array = batch.numpy().copy()
    expected = small(batch)
    assert torch.equal(small(array), expected)
    array.flags.writeable = False
    assert torch.equal(small(array), expected)
    assert [w for w in recwarn if "writ" in str(w.message)] == []
    assert torch.equal(batch, clips(small, 3))  # and leaves its input as it was


def test_no_clips_give_no_features(small):
    features = small(torch.empty(0, 3, 8, 8, 3, dtype=torch.uint8))
    assert features.shape == (0, 6) and features.dtype == torch.float32


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (
            torch.zeros(2, 3, 8, 8, 3),
            r"'small' takes decoded clips, uint8 \[N, 3, 8, 8, 3\], got .*float32; do not scale",
        ),
        (np.zeros((2, 3, 8, 8, 3), np.int16), "int16"),
        (torch.zeros(3, 8, 8, 3, dtype=torch.uint8), r"shape = \(3, 8, 8, 3\)"),
        (torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8), "the colour channel comes last"),
        (torch.zeros(2, 3, 8, 8, 4, dtype=torch.uint8), r"shape = \(2, 3, 8, 8, 4\)"),
        (torch.zeros(2, 16, 8, 8, 3, dtype=torch.uint8), "takes clips of 3 frames, got 16"),
        (torch.zeros(2, 3, 9, 8, 3, dtype=torch.uint8), "takes frames of 8 x 8 pixels, got 9 x 8"),
        ([[0]], "as a tensor or array .*, got list"),
    ],
    ids=["float", "int16", "four-dims", "channels-first", "rgba", "frames", "size", "list"],
)
def test_input_of_another_form_is_refused(small, clips, message):
    with pytest.raises(InputError, match=message):
        small(clips)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["small", "r3d-tiny"])
def test_a_feature_does_not_depend_on_its_batch(name, dtype, clips):
    """Up to rounding: the library beneath may choose another kernel for another batch size."""
    backbone = (
        load_backbone(name, dtype=dtype)
        if name != "small"
        else FrozenBackbone(Small(), spec=SPEC, dtype=dtype)
    )
    batch = clips(backbone, 7)
    together = backbone(batch)
    alone = torch.cat([backbone(batch[i : i + 1]) for i in range(7)])
    tolerance = 1e-5 if dtype == "fp32" else 1e-2
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)
    reordered = backbone(batch.flip(0)).flip(0)
    torch.testing.assert_close(together, reordered, rtol=tolerance, atol=tolerance)
    assert torch.equal(backbone(batch), together)


def test_precision_is_the_one_asked_for(clips):
    exact, rounded = (load_backbone("r3d-tiny", dtype=dtype) for dtype in ("fp32", torch.bfloat16))
    batch = clips(exact, 4)
    assert (exact.precision, rounded.precision) == ("fp32", "bf16")
    assert not torch.equal(exact(batch), rounded(batch))
    torch.testing.assert_close(exact(batch), rounded(batch), rtol=0.05, atol=0.05)
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(True, False, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_the_rule_for_bf16_on_a_cpu(monkeypatch, avx512_bf16, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert resolve_precision(None, device=torch.device("cpu")) == expected


def test_the_rule_where_torch_does_not_say(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert resolve_precision(None, device=torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), torch.bfloat16), ((7, 5), torch.float32)])
def test_the_rule_for_bf16_on_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision(None, device=torch.device("cuda", 0)) == expected


@pytest.mark.parametrize(
    ("dtype", "message"), [("int8", "one of"), (torch.float64, "float64"), ("fp16", "for GPUs")]
)
def test_a_precision_that_cannot_be_is_refused(dtype, message):
    with pytest.raises(InputError, match=message):
        load_backbone("r3d-tiny", dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(InputError, match=f"'r3d-tiny' cannot be on device {device}: "):
        load_backbone("r3d-tiny", device=device)


def test_hash_changes_with_one_weight_and_with_nothing_else(small, clips):
    before = small.weights_hash
    assert before == FrozenBackbone(Small(), spec=SPEC, dtype="bf16").weights_hash
    small(clips(small, 2))
    assert small.weights_hash == before
    small.encoder.conv.weight.view(-1)[17] += 1e-4
    assert small.weights_hash != before


def test_hash_sees_names_shapes_and_buffers(small):
    before = small.weights_hash
    small.encoder.norm.running_var[2] = 2.0
    changed = small.weights_hash
    assert changed != before
    small.encoder.norm.running_var[2] = 1.0
    assert small.weights_hash == before
    conv = small.encoder.conv
    conv.weight = nn.Parameter(conv.weight.reshape(3, 6, 3, 3, 3), requires_grad=False)
    assert small.weights_hash != before


def test_description_is_json_and_tells_backbones_apart(small):
    described = json.loads(json.dumps(small.describe()))
    assert described == small.describe()
    assert described["weights_hash"] == small.weights_hash and described["parameters"] == 6 * 81 + 6 + 12
    assert (described["mean"], described["size"], described["precision"]) == ([0.5, 0.4, 0.3], 8, "fp32")

    def identity(**changes):
        spec = BackboneSpec(**(vars(SPEC) | changes))
        return FrozenBackbone(Small(), spec=spec, dtype="bf16").describe()["identity"]

    # the name, the source, the stride and rounding do not decide a feature; the rest does
    assert identity(name="other", source={"kind": "folder"}, stride=9) == described["identity"]
    assert identity(mean=(0.5, 0.4, 0.2)) != described["identity"]
    assert identity(size=16) != described["identity"]
    assert identity(num_frames=4) != described["identity"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 0}, "num_frames must be a positive integer, got 0"),
        ({"size": 8.0}, "size must be a positive integer, got 8.0"),
        ({"mean": (0.5, 0.5)}, "mean must be 3 finite numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean must be 3 finite numbers"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        BackboneSpec(**(vars(SPEC) | changes))
