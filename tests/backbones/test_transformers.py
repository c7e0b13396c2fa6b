"""Folders of transformers: the features that transformers gives, and nothing silently random or ignored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scalefast.backbones import load_backbone
from scalefast.errors import DataError, InputError, MissingExtraError

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CLASSES = [
    "VideoMAEModel",
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "TimesformerModel",
    "TimesformerForVideoClassification",
    "VJEPA2Model",
    "VJEPA2ForVideoClassification",
]


def pixels_of(clips: torch.Tensor) -> torch.Tensor:
    """What the processors of transformers make of clips: [N, T, 3, H, W], computed in numpy and float64."""
    frames = (clips.numpy().astype(np.float64) * (1 / 255) - MEAN) / STD
    return torch.from_numpy(frames.transpose(0, 1, 4, 2, 3).astype(np.float32))


def feature_by_transformers(model, clips: torch.Tensor) -> torch.Tensor:
    """The pooled feature by the public classes alone; for fine-tuned ones what their classifier is fed."""
    name, pixels = type(model).__name__, pixels_of(clips)
    with torch.no_grad():
        if name.startswith("VJEPA2"):
            return getattr(model, "vjepa2", model).get_vision_features(pixels).mean(1)
        if name.endswith("ForVideoClassification"):
            fed = []
            handle = model.classifier.register_forward_pre_hook(lambda module, args: fed.append(args[0]))
            model(pixels)
            handle.remove()
            return fed[0]
        tokens = getattr(model, "videomae", model)(pixels).last_hidden_state
        return tokens[:, 0] if name.startswith("Timesformer") else tokens.mean(1)


@pytest.mark.parametrize("class_name", CLASSES)
def test_features_equal_those_of_transformers(originals, clips, class_name):
    folder, model = originals(class_name)
    backbone = load_backbone(folder, dtype="fp32")
    batch = clips(backbone, 3)
    expected = feature_by_transformers(model, batch)
    assert expected.std() > 0.05  # a constant feature would agree with anything
    torch.testing.assert_close(backbone(batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("class_name", CLASSES)
def test_what_the_folder_states_is_known(originals, class_name):
    folder, _ = originals(class_name)
    backbone = load_backbone(str(folder))
    assert (backbone.num_frames, backbone.size, backbone.feature_dim) == (4, 32, 24)
    assert (backbone.mean, backbone.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert backbone.name == class_name and backbone.describe()["architecture"] == class_name
    assert str(folder.parent) not in json.dumps(backbone.describe())  # no path of this machine in a store


def test_heads_are_dropped_and_change_nothing(copied, clips):
    folder = copied("VideoMAEForVideoClassification")
    before = load_backbone(folder, dtype="fp32")
    assert not [name for name, _ in before.named_parameters() if "classifier" in name]
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    after = load_backbone(folder, dtype="fp32")
    assert after.weights_hash == before.weights_hash
    assert torch.equal(after(clips(after, 2)), before(clips(before, 2)))


def test_fc_norm_takes_part(copied, clips):
    folder = copied("VideoMAEForVideoClassification")
    before = load_backbone(folder, dtype="fp32")
    tensors = load_file(folder / "model.safetensors")
    tensors["fc_norm.weight"] *= 2
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    after = load_backbone(folder, dtype="fp32")
    assert after.weights_hash != before.weights_hash
    bias = tensors["fc_norm.bias"]
    expected = 2 * (before(clips(before, 2)) - bias) + bias
    torch.testing.assert_close(after(clips(after, 2)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "class_name", ["VideoMAEForPreTraining", "TimesformerModel", "VJEPA2ForVideoClassification"]
)
def test_missing_unexpected_and_misshapen_keys_are_named(copied, class_name):
    folder = copied(class_name)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = sorted(key for key in tensors if key.endswith("weight") and "encoder" in key)[0]

    save_file({k: v for k, v in tensors.items() if k != name}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=rf"missing from the file: .*{name}"):
        load_backbone(folder)
    save_file(tensors | {"a.stranger": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=rf"keys that {class_name} does not have: .*a\.stranger"):
        load_backbone(folder)
    save_file(tensors | {name: torch.zeros(3, 5)}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=str(folder)) as error:
        load_backbone(folder)
    assert f"keys of another shape: {name}" in str(error.value)


def test_a_head_that_is_absent_is_named_too(copied):
    folder = copied("VideoMAEForVideoClassification")
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.startswith("classifier.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"classifier\.bias, classifier\.weight"):
        load_backbone(folder)


def test_weights_that_are_not_finite_are_refused(copied):
    folder = copied("TimesformerModel")
    tensors = load_file(folder / "model.safetensors")
    tensors["layernorm.bias"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"not finite: layernorm\.bias"):
        load_backbone(folder)


def test_half_precision_weights_load_as_float32(copied, clips):
    folder = copied("VideoMAEModel")
    file = folder / "model.safetensors"
    halves = {k: v.half() for k, v in load_file(file).items()}
    save_file(halves, file, metadata={"format": "pt"})
    backbone = load_backbone(folder, dtype="fp32")
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    save_file({k: v.float() for k, v in halves.items()}, file, metadata={"format": "pt"})
    same = load_backbone(folder, dtype="fp32")
    assert same.weights_hash == backbone.weights_hash
    assert torch.equal(same(clips(same, 2)), backbone(clips(backbone, 2)))


def test_loading_leaves_global_random_state_alone(originals):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_backbone(originals("VideoMAEForPreTraining")[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_several_weight_files_with_an_index(copied, originals):
    folder = copied("VJEPA2Model")
    _, model = originals("VJEPA2Model")
    whole = load_backbone(folder).weights_hash
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert load_backbone(folder).weights_hash == whole
    shards[1].unlink()
    with pytest.raises(DataError, match=shards[1].name):
        load_backbone(folder)


def test_pickled_weights_are_refused(copied):
    folder = copied("VideoMAEModel")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"found only pytorch_model\.bin: a pickle can run code"):
        load_backbone(folder)


def test_truncated_weights_are_refused(copied):
    folder = copied("VideoMAEModel")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"model\.safetensors: not a complete safetensors file"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ["BertModel"]},
            r"\['BertModel'\] is no backbone that can be loaded; known: VideoMAEModel",
        ),
        ({"model_type": "vivit"}, "model_type 'vivit'"),
        ({"image_size": 48}, r"crops to 32 pixels, but .*config\.json states image_size = 48"),
        ({"image_size": [32, 48]}, "image_size must be square"),
        ({"hidden_size": "wide"}, "VideoMAEModel cannot be loaded"),
        ({"num_attention_heads": 7}, "VideoMAEModel cannot be loaded"),
    ],
)
def test_a_config_that_cannot_be_is_refused(copied, change, message):
    folder = copied("VideoMAEModel")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_backbone(folder)


def test_a_config_that_contradicts_the_weights_is_refused(copied):
    folder = copied("VideoMAEModel")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(DataError, match=r"missing from the file: encoder\.layer\.2\."):
        load_backbone(folder)


def test_space_only_timesformer_is_refused(copied, originals):
    import transformers

    folder = copied("TimesformerModel")
    config = originals("TimesformerModel")[1].config.to_dict() | {"attention_type": "space_only"}
    transformers.TimesformerModel(transformers.TimesformerConfig(**config)).save_pretrained(folder)
    with pytest.raises(InputError, match="a vector a frame"):
        load_backbone(folder)


def test_without_transformers_the_extra_is_named(originals, monkeypatch):
    folder, _ = originals("VideoMAEModel")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scalefast\[backbones\]'"):
        load_backbone(folder)


def test_torchvision_is_not_imported(originals):
    """Its import fails beside CPU builds of torch, and its presence breaks transformers there."""
    folder, _ = originals("VJEPA2Model")
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from scalefast.backbones import load_backbone\n"
        "assert 'transformers' not in sys.modules\n"
        "print(load_backbone(sys.argv[1]).feature_dim)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "24" and "Loading weights" not in done.stderr
