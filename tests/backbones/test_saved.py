"""Encoders of every kind, written after training and loaded again: the same features, to the bit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from scalefast.backbones import BackboneSpec, FrozenBackbone, load_backbone, write_backbone
from scalefast.backbones.huggingface import _image
from scalefast.backbones.slow import SlowR50
from scalefast.backbones.slowfast import SlowFastR50
from scalefast.errors import DataError, InputError

CLASSES = ("VideoMAEModel", "VideoMAEForVideoClassification", "TimesformerModel", "VJEPA2Model")


def slow() -> FrozenBackbone:
    spec = BackboneSpec(
        name="s", architecture="Slow-R50", feature_dim=64, num_frames=4, stride=4, size=32,
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), pooling="mean",
    )  # fmt: skip
    return FrozenBackbone(SlowR50(width=2, blocks=(1, 1, 1, 1)), spec=spec, dtype="fp32")


def slowfast() -> FrozenBackbone:
    spec = BackboneSpec(
        name="sf", architecture="SlowFast-R50", feature_dim=288, num_frames=8, stride=2, size=32,
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), pooling="mean",
    )  # fmt: skip
    return FrozenBackbone(SlowFastR50(width=8, blocks=(1, 1, 1, 1), alpha=4, span=5), spec=spec, dtype="fp32")


def trained(backbone: FrozenBackbone) -> FrozenBackbone:
    """Weights as after a step; the folder of origin knows nothing of them."""
    with torch.no_grad():
        for parameter in backbone.encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return backbone


def images(class_name: str) -> FrozenBackbone:
    transformers = pytest.importorskip("transformers")
    small = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 8,
        "image_size": 32,
    }
    config = getattr(transformers, class_name.replace("Model", "Config"))(**small)
    encoder, _ = _image(getattr(transformers, class_name)(config).eval(), config)
    spec = BackboneSpec(
        name="i", architecture=class_name, feature_dim=24, num_frames=3, stride=4, size=32,
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), pooling="CLS",
    )  # fmt: skip
    return FrozenBackbone(encoder, spec=spec, dtype="fp32")


@pytest.mark.parametrize("class_name", [*CLASSES, "SlowR50", "SlowFastR50", "ViTModel", "Dinov2Model"])
def test_round_trip(class_name, originals, clips, tmp_path):
    if class_name in ("SlowR50", "SlowFastR50"):
        backbone = trained(slow() if class_name == "SlowR50" else slowfast())
    elif class_name in ("ViTModel", "Dinov2Model"):
        backbone = trained(images(class_name))
    else:
        backbone = trained(load_backbone(originals(class_name)[0], dtype="fp32"))
    write_backbone(backbone.encoder, backbone.spec, tmp_path, source={"kind": "cvrl", "epochs": 2})
    again = load_backbone(tmp_path, dtype="fp32")
    batch = clips(backbone, 2)
    assert torch.equal(again(batch), backbone(batch))
    told, before = again.describe(), backbone.describe()
    assert told["source"] == {"kind": "cvrl", "epochs": 2} and told["identity"] == before["identity"]
    assert again.stride == backbone.stride


def test_a_resized_network_keeps_its_positions(originals, clips, tmp_path):
    backbone = load_backbone(originals("VideoMAEModel")[0], dtype="fp32", num_frames=8, size=48)
    write_backbone(backbone.encoder, backbone.spec, tmp_path, source={})
    again = load_backbone(tmp_path, dtype="fp32")
    assert (again.num_frames, again.size) == (8, 48)
    batch = clips(backbone, 1)
    assert torch.equal(again(batch), backbone(batch))


@pytest.fixture
def saved(tmp_path):
    backbone = slow()
    write_backbone(backbone.encoder, backbone.spec, tmp_path, source={})
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version 2 cannot be read"),
        ({"licence": "MIT"}, r"config\.json: unknown licence"),
        ({"network": {"encoder": "Other", "config": {"model_type": "x"}}}, "describes no encoder"),
        ({"network": {"encoder": "SlowR50"}}, r"describes no encoder \('width'\)"),
        ({"network": {"encoder": "SlowR50", "width": 3, "blocks": [1, 1, 1, 1]}}, "conv.weight is"),
        ({"network": {"encoder": "SlowR50", "width": 2, "blocks": [1]}}, "describes no encoder"),
        ({"network": {"encoder": "SlowR50", "width": -2, "blocks": [1, 1, 1, 1]}}, "describes no encoder"),
        ({"network": {"encoder": "SlowR50", "width": "2", "blocks": [1, 1, 1, 1]}}, "describes no encoder"),
        (
            {"network": {"encoder": "SlowFastR50", "width": 4, "blocks": [1], "alpha": 0, "span": 1}},
            "multiple of 8",
        ),
        ({"network": "SlowR50"}, "describes no encoder"),
        (
            {
                "network": {
                    "encoder": "SlowFastR50",
                    "width": 8,
                    "blocks": [1, 1, 1, 1],
                    "alpha": 0,
                    "span": 5,
                }
            },
            "alpha must be positive",
        ),
        ({"weights_hash": "0"}, "is not the one in config.json, 0"),
        ({"spec": {}}, "describes no encoder"),
    ],
)
def test_a_header_that_cannot_be_is_refused(saved, change, message):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_backbone(saved)


def test_another_tensor_is_noticed(saved):
    state = load_file(saved / "model.safetensors")
    state["conv.weight"][0] += 1
    save_file(state, saved / "model.safetensors")
    with pytest.raises(DataError, match="weights hash"):
        load_backbone(saved)


def test_a_module_of_ones_own_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="a Linear cannot be saved"):
        write_backbone(torch.nn.Linear(1, 1), slow().spec, tmp_path, source={})
    assert not list(tmp_path.iterdir())
