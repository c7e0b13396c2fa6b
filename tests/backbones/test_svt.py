"""SVT from its authors' files: the CLS token of a plain network, and every name accounted for."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from scalefast.backbones import REGISTRY, NamedBackbone, load_backbone
from scalefast.backbones.svt import SVTFile
from scalefast.errors import DataError

pytest.importorskip("transformers")
TINY = {"width": 24, "depth": 2, "heads": 2, "mlp": 40, "num_frames": 3, "size": 32, "patch": 8}
SHAPES = {"width": 24, "depth": 2, "hidden": 40, "patch": 8, "patches": 16, "frames": 3}


@pytest.fixture
def write(released, tmp_path, monkeypatch):
    """`write(under=..., **changes)`: (file, state); None leaves a name out. The backbone `tiny` reads it."""
    monkeypatch.setitem(REGISTRY, "tiny", NamedBackbone(summary="", checkpoint=SVTFile(**TINY)))

    def to_file(under: str | None = None, **changes) -> tuple[Path, dict[str, torch.Tensor]]:
        state = released.drawn(released.svt_shapes(**SHAPES)) | changes
        state = {name: value for name, value in state.items() if value is not None}
        content = {under: state, "student": {}, "epoch": 20, "args": argparse.Namespace()} if under else state
        torch.save(content, tmp_path / "svt.pth")
        return tmp_path / "svt.pth", state

    return to_file


@pytest.mark.parametrize("under", [None, "teacher"])
def test_features_equal_those_of_a_plain_network(write, released, clips, under):
    file, state = write(under)
    backbone = load_backbone("tiny", checkpoint=file, dtype="fp32")
    batch = clips(backbone, 3)
    expected = released.svt(batch, state, heads=2)
    assert expected.std(0).mean() > 0.01
    torch.testing.assert_close(backbone(batch), expected.float(), rtol=1e-5, atol=1e-5)


def test_what_is_known_of_it(write):
    backbone = load_backbone("tiny", checkpoint=write()[0])
    assert (backbone.num_frames, backbone.stride, backbone.size, backbone.feature_dim) == (3, 32, 32, 24)
    assert (backbone.mean, backbone.std) == ((0.45,) * 3, (0.225,) * 3)
    assert backbone.describe()["pooling"] == "CLS token after the final normalisation"


def test_the_named_one_has_the_authors_names_and_shapes(released):
    form = REGISTRY["svt-b"].checkpoint
    layout, ours = form.layout(), form.build(needed_for="a test").state_dict()
    shapes = released.svt_shapes(width=768, depth=12, hidden=3072, patch=16, patches=196, frames=8)
    kept = {name: shape for name, shape in shapes.items() if not name.startswith("head.")}
    assert {theirs: tuple(ours[name].shape) for theirs, (name,) in layout.names.items()} == kept
    # 121.4 M with a classifier is the published figure of TimeSformer-B (Bertasius et al., 2021)
    assert sum(t.numel() for t in ours.values()) + 400 * 768 + 400 == pytest.approx(121.4e6, rel=2e-3)


def test_heads_change_nothing(write):
    before = load_backbone("tiny", checkpoint=write()[0]).weights_hash
    changes = {"head.mlp.0.weight": None, "backbone.head.weight": torch.ones(5, 24)}
    assert load_backbone("tiny", checkpoint=write("teacher", **changes)[0]).weights_hash == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.blocks.1.temporal_fc.bias": None}, r"missing: backbone\.blocks\.1\.temporal_fc\.bias"),
        (
            {"backbone.aux_cls_token": torch.ones(1, 1, 24)},
            r"names that it does not have: backbone\.aux_cls_token",
        ),
        (
            {"backbone.time_embed": torch.ones(1, 8, 24)},
            r"backbone\.time_embed \[1, 8, 24\] in place of \[1, 3, 24\]",
        ),
    ],
    ids=["missing", "two-tokens", "frames"],
)
def test_weights_that_do_not_fit_are_named(write, changes, message):
    with pytest.raises(DataError, match=rf"svt\.pth does not fit SVT \(2 TimeSformer blocks.*{message}"):
        load_backbone("tiny", checkpoint=write(**changes)[0])


def test_other_files(write, tmp_path):
    torch.save({"model": {}}, tmp_path / "videomae.pth")
    with pytest.raises(DataError, match=r"'backbone\.', alone or under 'teacher'; found model"):
        load_backbone("tiny", checkpoint=tmp_path / "videomae.pth")
    torch.save({"teacher": {"head.weight": torch.ones(1)}}, tmp_path / "head.pth")
    with pytest.raises(DataError, match=r"under 'teacher'; found head\.weight"):
        load_backbone("tiny", checkpoint=tmp_path / "head.pth")
    with pytest.raises(DataError, match=r"12 TimeSformer blocks of width 768.*missing: .*another shape"):
        load_backbone("svt-b", checkpoint=write()[0])
