"""V-JEPA 2 from its authors' files: the features of a plain network, of the averaged encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scalefast.backbones import REGISTRY, NamedBackbone, load_backbone
from scalefast.backbones.vjepa2 import VJEPA2File
from scalefast.errors import DataError

pytest.importorskip("transformers")
TINY = {"width": 40, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "num_frames": 4, "size": 32, "patch": 8}
SHAPES = {"width": 40, "depth": 2, "hidden": 80, "patch": 8}


@pytest.fixture
def write(released, tmp_path, monkeypatch):
    """`write(**changes)`: (file, state); None leaves a name out. The backbone `tiny` reads it."""
    monkeypatch.setitem(REGISTRY, "tiny", NamedBackbone(summary="", checkpoint=VJEPA2File(**TINY)))

    def to_file(**changes) -> tuple[Path, dict[str, torch.Tensor]]:
        changes = {f"module.backbone.{name}": value for name, value in changes.items()}
        state = released.drawn(released.vjepa2_shapes(**SHAPES)) | changes
        state = {name: value for name, value in state.items() if value is not None}
        others = released.drawn(released.vjepa2_shapes(**SHAPES), seed=1)
        content = {"target_encoder": state, "encoder": others, "predictor": {}, "epoch": 40}
        torch.save(content, tmp_path / "vitl.pt")
        return tmp_path / "vitl.pt", state

    return to_file


@pytest.mark.parametrize("geometry", [{}, {"num_frames": 6, "size": 40}], ids=["native", "larger"])
def test_features_equal_those_of_a_plain_network(write, released, clips, geometry):
    file, state = write()
    backbone = load_backbone("tiny", checkpoint=file, dtype="fp32", **geometry)
    batch = clips(backbone, 2)
    expected = released.vjepa2(batch, state, heads=2)
    assert expected.std(0).mean() > 0.01
    torch.testing.assert_close(backbone(batch), expected.float(), rtol=1e-5, atol=1e-5)


def test_what_is_known_of_it(write, released):
    backbone = load_backbone("tiny", checkpoint=write()[0])
    assert (backbone.num_frames, backbone.size, backbone.feature_dim) == (4, 32, 40)
    assert (backbone.mean, backbone.std) == released.IMAGENET
    assert backbone.describe()["source"]["layout"] == "V-JEPA 2, target encoder"


@pytest.mark.parametrize(
    ("name", "width", "depth", "hidden"),
    [("vjepa2-l", 1024, 24, 4096), ("vjepa2-h", 1280, 32, 5120), ("vjepa2-g", 1408, 40, 6144)],
)
def test_the_named_ones_have_the_authors_names_and_shapes(released, name, width, depth, hidden):
    form = REGISTRY[name].checkpoint
    layout, ours = form.layout(), form.build(needed_for="a test").state_dict()
    shapes = released.vjepa2_shapes(width=width, depth=depth, hidden=hidden, patch=16)
    shapes = {theirs.removeprefix("module.backbone."): shape for theirs, shape in shapes.items()}
    del shapes["pos_embed"]
    joined = {
        theirs: (ours[parts[0]].shape[0] * len(parts), *ours[parts[0]].shape[1:])
        for theirs, parts in layout.names.items()
    }
    assert joined == shapes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.1.attn.qkv.bias": None}, r"missing: blocks\.1\.attn\.qkv\.bias"),
        ({"blocks.1.attn.q_bias": torch.ones(40)}, r"names that it does not have: blocks\.1\.attn\.q_bias"),
        ({"norm.weight": torch.ones(41)}, r"another shape: norm\.weight \[41\] in place of \[40\]"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_that_do_not_fit_are_named(write, changes, message):
    with pytest.raises(DataError, match=rf"vitl\.pt does not fit V-JEPA 2 ViT-L \(2 blocks.*{message}"):
        load_backbone("tiny", checkpoint=write(**changes)[0])


def test_other_files(write, tmp_path):
    torch.save({"encoder": {}}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="dictionary of weights under 'target_encoder', found only encoder"):
        load_backbone("tiny", checkpoint=tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"24 blocks of width 1024.*missing: .*another shape"):
        load_backbone("vjepa2-l", checkpoint=write()[0])
