"""SlowFast-R50 from PySlowFast's files: the features of a plain network, with every name accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scalefast.backbones import REGISTRY, NamedBackbone, load_backbone
from scalefast.backbones.catalog import count
from scalefast.backbones.slowfast import SlowFastFile, SlowFastR50
from scalefast.errors import DataError, InputError

TINY = {"width": 8, "blocks": (2, 1, 1, 1), "span": 5}
HIST = "backbone_hist."


@pytest.fixture
def write(released, tmp_path, monkeypatch):
    """`write(teacher=..., cfg=..., **changes)`: (file, state); None leaves a name out. The backbone `tiny` reads it."""
    form = SlowFastFile(alpha=4, num_frames=8, size=64, **TINY)
    monkeypatch.setitem(REGISTRY, "tiny", NamedBackbone(summary="", checkpoint=form))

    def to_file(*, teacher: bool = False, cfg: str = "", **changes) -> tuple[Path, dict[str, torch.Tensor]]:
        shapes = released.slowfast_shapes(**TINY)
        if teacher:
            shapes = released.contrastive_shapes(shapes, features=288, head="head")
        else:
            shapes |= {"head.projection.weight": (5, 288), "head.projection.bias": (5,)}
        state = released.drawn(shapes) | changes
        state = {name: value for name, value in state.items() if value is not None}
        content = {"epoch": 195, "model_state": state, "optimizer_state": {"state": {}}, "cfg": cfg}
        torch.save(content, tmp_path / "sf.pyth")
        return tmp_path / "sf.pyth", state

    return to_file


@pytest.mark.parametrize("geometry", [{}, {"num_frames": 12, "size": 40}], ids=["native", "other"])
@pytest.mark.parametrize("teacher", [False, True], ids=["with-labels", "rhobyol"])
def test_features_equal_those_of_a_plain_network(write, released, clips, teacher, geometry):
    file, state = write(teacher=teacher)
    backbone = load_backbone("tiny", checkpoint=file, dtype="fp32", **geometry)
    batch = clips(backbone, 2)
    if teacher:
        state = {name.removeprefix(HIST): value for name, value in state.items() if name.startswith(HIST)}
    expected = released.slowfast(batch, state, alpha=4)
    assert expected.shape == (2, 288) and expected.std(0).mean() > 0.01
    torch.testing.assert_close(backbone(batch), expected.float(), rtol=1e-5, atol=1e-5)


def test_what_is_known_of_it(write):
    backbone = load_backbone("tiny", checkpoint=write()[0])
    assert (backbone.num_frames, backbone.stride, backbone.size, backbone.feature_dim) == (8, 2, 64, 288)
    assert (backbone.mean, backbone.std) == ((0.45,) * 3, (0.225,) * 3)
    assert backbone.describe()["source"]["layout"] == "PySlowFast"
    taught = load_backbone("tiny", checkpoint=write(teacher=True)[0])
    assert taught.describe()["source"]["layout"] == "rhoBYOL, momentum teacher"


def test_the_slow_pathway_sees_the_frames_that_the_authors_pick():
    """`linspace(0, 31, 8)` rounded down (pack_pathway_output): not every fourth frame."""
    with torch.device("meta"):
        model = SlowFastR50()
    assert model.slow_frames(32) == [0, 4, 8, 13, 17, 22, 26, 31]


@pytest.mark.parametrize("clips", [1, 2])
def test_both_pathways_keep_the_memory_format(clips):
    """A first stride that says nothing made convolutions of a single clip leave it: bf16 took twice as long as fp32."""
    model, strides = SlowFastR50(width=8, blocks=(1, 1, 1, 1)).eval(), {}
    for pathway, stem in model.stems.items():
        stem.register_forward_pre_hook(
            lambda module, args, at=pathway: strides.update({at: (args[0].shape, args[0].stride())})
        )
    model(torch.zeros(clips, 8, 32, 32, 3).permute(0, 4, 1, 2, 3))
    for (_, channels, frames, rows, columns), found in strides.values():
        line = columns * channels
        assert found == (frames * rows * line, 1, rows * line, line, channels)


@pytest.mark.parametrize(("name", "span"), [("slowfast-r50", 7), ("slowfast-r50-4x16", 5)])
def test_the_named_ones_are_the_published_networks(released, name, span):
    form = REGISTRY[name].checkpoint
    model = form.build()
    assert (model.feature_dim, form.num_frames, form.size) == (2304, 32, 224)
    ours, layout = model.state_dict(), form.layout(teacher=True)
    shapes = released.slowfast_shapes(width=64, blocks=(3, 4, 6, 3), span=span, at=HIST)
    shapes = {theirs: shape for theirs, shape in shapes.items() if not theirs.endswith("num_batches_tracked")}
    assert {theirs: tuple(ours[mine].shape) for theirs, (mine,) in layout.names.items()} == shapes


def test_sizes_are_the_published_ones():
    """PyTorchVideo's figures of slowfast_r50 (8x8, 256 pixels): 34.57 M with the classifier for 400, 65.71 G."""
    form = SlowFastFile(size=256)
    parameters, flops = count(form.build(), form.spec(name="x"))
    assert parameters + 2304 * 400 + 400 == pytest.approx(34.57e6, abs=5e3)
    assert flops / 2 == pytest.approx(65.71e9, rel=0.01)


def test_the_trained_network_heads_and_counters_change_nothing(write):
    before = load_backbone("tiny", checkpoint=write()[0]).weights_hash
    changes = {"head.projection.weight": None, "s2_fuse.bn.num_batches_tracked": None}
    assert load_backbone("tiny", checkpoint=write(**changes)[0]).weights_hash == before
    taught = load_backbone("tiny", checkpoint=write(teacher=True)[0]).weights_hash
    changes = {"backbone.s1_fuse.conv_f2s.weight": None, f"{HIST}s3_fuse.bn.num_batches_tracked": None}
    assert load_backbone("tiny", checkpoint=write(teacher=True, **changes)[0]).weights_hash == taught


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"s3_fuse.bn.running_var": None}, r"missing: s3_fuse\.bn\.running_var"),
        ({"s2.pathway1_res0.branch1.weight": None}, r"missing: s2\.pathway1_res0\.branch1\.weight"),
        (
            {"s4.pathway0_nonlocal1.conv_g.weight": torch.ones(1)},
            r"does not have: s4\.pathway0_nonlocal1\.conv_g\.weight",
        ),
        (
            {"s1_fuse.conv_f2s.weight": torch.ones(2, 1, 7, 1, 1)},
            r"another shape: s1_fuse\.conv_f2s\.weight \[2, 1, 7, 1, 1\] in place of \[2, 1, 5, 1, 1\]",
        ),
    ],
    ids=["fusion", "fast", "nonlocal", "span"],
)
def test_weights_that_do_not_fit_are_named(write, changes, message):
    with pytest.raises(DataError, match=rf"sf\.pyth does not fit SlowFast-R50 .*{message}"):
        load_backbone("tiny", checkpoint=write(**changes)[0])


@pytest.mark.parametrize(("alpha", "fits"), [(4, True), (8, False)])
def test_a_file_that_says_another_alpha_is_refused(write, alpha, fits):
    """No weight tells how many frames lie between those of the Slow pathway; the options in the file do."""
    options = f"MIXUP:\n  ALPHA: 1\nSLOWFAST:\n  ALPHA: {alpha}\n  BETA_INV: 8\nTASK: ssl\n"
    file, _ = write(cfg=options)
    if fits:
        assert load_backbone("tiny", checkpoint=file).num_frames == 8
        return
    with pytest.raises(DataError, match=r"sf\.pyth .*cfg states SLOWFAST\.ALPHA 8, expected 4"):
        load_backbone("tiny", checkpoint=file)


def test_other_files_and_lengths(write, released, tmp_path):
    with pytest.raises(
        InputError, match="num_frames must be a multiple of 4, of which its Slow pathway sees one"
    ):
        load_backbone("tiny", checkpoint=write()[0], num_frames=10)
    with pytest.raises(InputError, match="'slowfast-r50' exists only as its authors' file: pass checkpoint="):
        load_backbone("slowfast-r50")
    with pytest.raises(DataError, match=r"lateral connections of 7 frames\).*missing: .*another shape"):
        load_backbone("slowfast-r50", checkpoint=write()[0])
    shapes = released.slow_shapes(
        width=8, blocks=(2, 1, 1, 1)
    )  # of the Slow network, whose cfg states some alpha, too
    content = {"model_state": released.drawn(shapes), "cfg": "SLOWFAST:\n  ALPHA: 8\n"}
    torch.save(content, tmp_path / "slow.pyth")
    with pytest.raises(
        DataError, match=r"slow\.pyth does not fit SlowFast-R50 \(stages.*missing: s1\.pathway1_stem.*shape"
    ):
        load_backbone("tiny", checkpoint=tmp_path / "slow.pyth")
    torch.save({"model_state": {"blocks.0.norm.weight": torch.ones(1)}}, tmp_path / "mvit.pyth")
    with pytest.raises(DataError, match=r"none of its names is there, found blocks\.0\.norm\.weight"):
        load_backbone("tiny", checkpoint=tmp_path / "mvit.pyth")
    with pytest.raises(InputError, match="width must be a multiple of 8, got 12"):
        SlowFastR50(width=12)
    with pytest.raises(InputError, match="alpha must be positive and span odd, got alpha = 4, span = 6"):
        SlowFastR50(width=8, span=6)
