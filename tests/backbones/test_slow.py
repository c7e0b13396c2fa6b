"""Slow-R50 from rhoBYOL's files: the features of a plain network, of the teacher, with every name accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scalefast.backbones import REGISTRY, NamedBackbone, load_backbone
from scalefast.backbones.slow import SlowFile, SlowR50
from scalefast.errors import DataError, InputError

TINY = {"width": 4, "blocks": (2, 1, 2, 1)}


@pytest.fixture
def write(released, tmp_path, monkeypatch):
    """`write(head=..., **changes)`: (file, state); None leaves a name out. The backbone `tiny` reads it."""
    form = SlowFile(num_frames=5, size=64, **TINY)
    monkeypatch.setitem(REGISTRY, "tiny", NamedBackbone(summary="", checkpoint=form))

    def to_file(head: str = "head", **changes) -> tuple[Path, dict[str, torch.Tensor]]:
        state = released.drawn(released.rhobyol_shapes(head=head, **TINY)) | changes
        state = {name: value for name, value in state.items() if value is not None}
        content = {"epoch": 200, "model_state": state, "optimizer_state": {"state": {}}, "cfg": "TASK: ssl\n"}
        torch.save(content, tmp_path / "rho.pyth")
        return tmp_path / "rho.pyth", state

    return to_file


@pytest.mark.parametrize("head", ["head", "ssl_256"])
def test_features_equal_those_of_a_plain_network_with_the_teachers_weights(write, released, clips, head):
    file, state = write(head)
    backbone = load_backbone("tiny", checkpoint=file, dtype="fp32")
    batch = clips(backbone, 2)
    at = "backbone_hist."
    expected = released.slow(
        batch, {name.removeprefix(at): value for name, value in state.items() if name.startswith(at)}
    )
    assert expected.shape == (2, 128) and expected.std(0).mean() > 0.01
    torch.testing.assert_close(backbone(batch), expected.float(), rtol=1e-5, atol=1e-5)


def test_what_is_known_of_it(write):
    backbone = load_backbone("tiny", checkpoint=write()[0])
    assert (backbone.num_frames, backbone.stride, backbone.size, backbone.feature_dim) == (5, 4, 64, 128)
    assert (backbone.mean, backbone.std) == ((0.45,) * 3, (0.225,) * 3)
    assert backbone.describe()["source"]["layout"] == "rhoBYOL, momentum teacher"


def test_the_named_one_is_the_published_network(released):
    with torch.device("meta"):
        model = SlowR50()
    assert model.feature_dim == 2048
    # 32.45 M with the classifier for 400 classes (PyTorchVideo's published figure for slow_r50)
    assert sum(p.numel() for p in model.parameters()) + 2048 * 400 + 400 == pytest.approx(32.45e6, abs=5e3)
    form = REGISTRY["rhobyol-slow-r50"].checkpoint
    shapes = released.slow_shapes(width=64, blocks=(3, 4, 6, 3), at="backbone_hist.")
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    assert set(form.layout().names) == set(shapes)
    ours = model.state_dict()
    assert {theirs: tuple(ours[name].shape) for theirs, (name,) in form.layout().names.items()} == shapes
    assert (form.num_frames, form.size) == (16, 224)


def test_the_trained_network_heads_and_counters_change_nothing(write):
    before = load_backbone("tiny", checkpoint=write()[0]).weights_hash
    stem = "pathway0_stem"
    changes = {
        f"backbone.s1.{stem}.conv.weight": torch.ones(4, 3, 1, 7, 7),
        f"backbone_hist.s1.{stem}.bn.num_batches_tracked": None,
        f"backbone.s1.{stem}.bn.num_batches_tracked": torch.tensor(9),
        "queue_x": None,
    }
    assert load_backbone("tiny", checkpoint=write("ssl_256", **changes)[0]).weights_hash == before


def test_running_statistics_take_part(write):
    before = load_backbone("tiny", checkpoint=write()[0]).weights_hash
    changes = {"backbone_hist.s5.pathway0_res0.branch2.c_bn.running_mean": torch.ones(128)}
    assert load_backbone("tiny", checkpoint=write(**changes)[0]).weights_hash != before


BLOCK = "backbone_hist.s3.pathway0_res0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{BLOCK}.branch1.weight": None}, r"missing: backbone_hist\.s3\.pathway0_res0\.branch1\.weight"),
        (
            {f"{BLOCK}.branch2.d.weight": torch.ones(1)},
            r"names that it does not have: .*res0\.branch2\.d\.weight",
        ),
        ({"backbone.s6.weight": torch.ones(1)}, r"names that it does not have: backbone\.s6\.weight"),
        (
            {f"{BLOCK}.branch2.a.weight": torch.ones(8, 16, 3, 1, 1)},
            r"another shape: .*branch2\.a\.weight \[8, 16, 3, 1, 1\] in place of \[8, 16, 1, 1, 1\]",
        ),
    ],
    ids=["missing", "unknown", "unknown-in-the-dropped", "i3d"],
)
def test_weights_that_do_not_fit_are_named(write, changes, message):
    with pytest.raises(DataError, match=rf"rho\.pyth does not fit rhoBYOL Slow-R50 .*{message}"):
        load_backbone("tiny", checkpoint=write(**changes)[0])


def test_other_files(write, tmp_path):
    with pytest.raises(InputError, match=r"'tiny' exists only as its authors' file: pass checkpoint="):
        load_backbone("tiny")
    torch.save({"model": {}}, tmp_path / "videomae.pth")
    with pytest.raises(DataError, match="dictionary of weights under 'model_state', found only model"):
        load_backbone("tiny", checkpoint=tmp_path / "videomae.pth")
    torch.save({"model_state": {"s1.pathway0_stem.conv.weight": torch.ones(1)}}, tmp_path / "slow.pyth")
    with pytest.raises(DataError, match=r"momentum teacher, .*'backbone_hist\.'.*found s1\.pathway0_stem"):
        load_backbone("tiny", checkpoint=tmp_path / "slow.pyth")
    with pytest.raises(DataError, match=r"stages of \(3, 4, 6, 3\) blocks.*missing: .*another shape"):
        load_backbone("rhobyol-slow-r50", checkpoint=write()[0])
