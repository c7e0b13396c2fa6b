"""timm's networks, a frame at a time, proved with a module that stands in for timm.

timm itself cannot be imported here: it needs torchvision, which does not import beside the CPU build of torch.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from scalefast.backbones import load_backbone
from scalefast.errors import InputError, MissingExtraError


class Network(nn.Module):
    """What timm gives for `num_classes=0`: images [n, 3, H, W] -> pooled [n, num_features]."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu().mean((2, 3))


@pytest.fixture
def timm(monkeypatch):
    """A module with the four names of timm that are used, recording how it is called."""
    module = types.ModuleType("timm")
    torch.manual_seed(0)
    network, asked = Network(), []

    def create_model(name, *, pretrained, num_classes):
        asked.append((name, pretrained, num_classes))
        if name.endswith(".none"):
            raise RuntimeError("No pretrained weights exist for this model.")
        return network

    stated = {"input_size": (3, 32, 32), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    module.__version__ = "1.0.12"
    module.is_model = lambda name: name == "tiny_net"
    module.create_model = create_model
    module.data = types.SimpleNamespace(resolve_model_data_config=lambda model: stated)
    module.asked, module.network, module.stated = asked, network, stated
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_the_feature_is_the_mean_of_the_frames(timm, clips):
    backbone = load_backbone("timm/tiny_net.in1k", dtype="fp32")
    assert timm.asked == [("tiny_net.in1k", True, 0)]
    assert (backbone.num_frames, backbone.size, backbone.feature_dim) == (16, 32, 6)
    batch = clips(backbone, 3)
    mean, std = (torch.tensor(timm.stated[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = torch.stack(
            [
                torch.stack(
                    [timm.network(((f.permute(2, 0, 1) / 255 - mean) / std)[None])[0] for f in clip]
                ).mean(0)
                for clip in batch
            ]
        )
    torch.testing.assert_close(backbone(batch), expected, rtol=1e-5, atol=1e-6)
    assert backbone.describe()["source"] == {"kind": "timm", "name": "tiny_net.in1k", "version": "1.0.12"}


def test_any_number_of_frames_of_one_size(timm, clips):
    backbone = load_backbone("timm/tiny_net", num_frames=4)
    assert backbone(clips(backbone, 2)).shape == (2, 6)
    with pytest.raises(InputError, match="takes frames of 32 x 32 pixels only, got 64"):
        load_backbone("timm/tiny_net", size=64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/tiny_nett", r"timm 1\.0\.12 has no network 'tiny_nett'"),
        ("timm/tiny_net.none", "its weights cannot be had: No pretrained weights"),
    ],
)
def test_what_timm_lacks_is_said(timm, name, message):
    with pytest.raises(InputError, match=message):
        load_backbone(name)


def test_an_input_that_is_not_square_is_refused(timm):
    timm.stated["input_size"] = (3, 32, 64)
    with pytest.raises(InputError, match="expected a square colour input"):
        load_backbone("timm/tiny_net")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scalefast\[timm\]'"):
        load_backbone("timm/resnet50.a1_in1k")
