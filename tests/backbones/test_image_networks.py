"""Networks for images, applied to each frame and averaged: the features that transformers gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scalefast.backbones import load_backbone
from scalefast.errors import DataError, InputError

transformers = pytest.importorskip("transformers")
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
CLASSES = ["ViTModel", "ViTForImageClassification", "Dinov2Model", "Dinov2ForImageClassification"]


@pytest.fixture
def saved(tmp_path):
    """`saved(class_name, crop=32)`: (folder, model) with every weight random, for images of 32 pixels."""

    def save(class_name: str, crop: int = 32):
        cls = getattr(transformers, class_name)
        config = cls.config_class(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32,
            patch_size=8,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = cls(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.2 * torch.randn(parameter.shape))
        folder = tmp_path / class_name
        model.save_pretrained(folder)
        crops = {"crop_size": {"height": crop, "width": crop}, "size": {"shortest_edge": crop}}
        stated = {"image_mean": MEAN, "image_std": STD, "do_center_crop": True, **crops}
        (folder / "preprocessor_config.json").write_text(json.dumps(stated))
        return folder, model

    return save


def by_transformers(model, clips: torch.Tensor, **options) -> torch.Tensor:
    """Mean over the frames of the CLS token, one frame of one clip after the other."""
    body = getattr(model, model.base_model_prefix, model)
    frames = (clips.numpy().astype(np.float64) / 255 - MEAN) / STD
    pixels = torch.from_numpy(frames.transpose(0, 1, 4, 2, 3).astype(np.float32))
    with torch.no_grad():
        features = [
            torch.stack([body(frame[None], **options).last_hidden_state[0, 0] for frame in clip])
            for clip in pixels
        ]
    return torch.stack([each.mean(0) for each in features])


@pytest.mark.parametrize("class_name", CLASSES)
def test_features_are_the_mean_over_the_frames(saved, clips, class_name):
    folder, model = saved(class_name)
    backbone = load_backbone(folder, dtype="fp32")
    assert (backbone.num_frames, backbone.stride, backbone.size, backbone.feature_dim) == (16, 4, 32, 24)
    assert (backbone.mean, backbone.std) == (tuple(MEAN), tuple(STD))
    assert backbone.describe()["architecture"] == class_name
    assert not [name for name, _ in backbone.named_parameters() if "pooler" in name or "classifier" in name]
    batch = clips(backbone, 2)
    expected = by_transformers(model, batch)
    assert expected.std(0).mean() > 0.01
    torch.testing.assert_close(backbone(batch), expected, rtol=1e-5, atol=1e-5)
    # a mean: the order of the frames does not matter
    torch.testing.assert_close(backbone(batch.flip(1)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("class_name", "options"), [("ViTModel", {"interpolate_pos_encoding": True}), ("Dinov2Model", {})]
)
def test_the_size_is_that_of_the_preprocessing_or_the_one_asked_for(saved, clips, class_name, options):
    folder, model = saved(class_name, crop=48)
    backbone = load_backbone(folder, dtype="fp32", num_frames=3)
    assert (backbone.num_frames, backbone.size) == (3, 48)
    batch = clips(backbone, 2)
    torch.testing.assert_close(
        backbone(batch), by_transformers(model, batch, **options), rtol=1e-5, atol=1e-5
    )
    other = load_backbone(folder, dtype="fp32", num_frames=1, size=40)
    batch = clips(other, 2)
    torch.testing.assert_close(other(batch), by_transformers(model, batch, **options), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="size must be a multiple of its patches of 8 pixels"):
        load_backbone(folder, size=44)


def test_a_pooler_may_be_missing_and_nothing_else(saved):
    folder, _ = saved("ViTModel")
    whole = load_backbone(folder).weights_hash
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    assert len(kept) == len(tensors) - 2
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_backbone(folder).weights_hash == whole
    del kept["layernorm.bias"]
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"keys missing from the file: layernorm\.bias$"):
        load_backbone(folder)
