"""VideoMAE from its authors' files: the features of a plain network, and nothing missing, unknown or run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch

from scalefast.backbones import REGISTRY, NamedBackbone, load_backbone
from scalefast.backbones.videomae import VideoMAEFile, sinusoids
from scalefast.errors import DataError, InputError

pytest.importorskip("transformers")
TINY = {"width": 24, "depth": 2, "heads": 2, "mlp": 40, "num_frames": 4, "size": 32, "patch": 8}
SHAPES = {"width": 24, "depth": 2, "hidden": 40, "patch": 8}


@pytest.fixture
def names(monkeypatch):
    for name, fine_tuned in (("tiny", None), ("tiny-pretrained", False), ("tiny-k400", True)):
        entry = NamedBackbone(
            summary="", hub_id="some/net", checkpoint=VideoMAEFile(fine_tuned=fine_tuned, **TINY)
        )
        monkeypatch.setitem(REGISTRY, name, entry)


@pytest.fixture
def write(names, released, tmp_path):
    """`write(fine_tuned=..., name=value or None to leave it out)`: (file, state)."""

    def to_file(
        *, fine_tuned: bool, under: str | None = None, **changes
    ) -> tuple[Path, dict[str, torch.Tensor]]:
        state = released.drawn(released.videomae_shapes(fine_tuned=fine_tuned, **SHAPES)) | changes
        state = {name: value for name, value in state.items() if value is not None}
        # as training scripts write them: options and epoch beside the weights
        content = {
            under or ("module" if fine_tuned else "model"): state,
            "epoch": 799,
            "args": argparse.Namespace(lr=1e-3),
        }
        torch.save(content, tmp_path / "released.pth")
        return tmp_path / "released.pth", state

    return to_file


@pytest.mark.parametrize("fine_tuned", [False, True], ids=["pretrained", "fine-tuned"])
def test_features_equal_those_of_a_plain_network(write, released, clips, fine_tuned):
    file, state = write(fine_tuned=fine_tuned)
    backbone = load_backbone("tiny", checkpoint=file, dtype="fp32")
    batch = clips(backbone, 3)
    expected = released.videomae(batch, state, heads=2, fine_tuned=fine_tuned)
    assert expected.std(0).mean() > 0.01  # a constant feature would agree with anything
    torch.testing.assert_close(backbone(batch), expected.float(), rtol=1e-5, atol=1e-5)


def test_a_fine_tuned_file_written_without_deepspeed(write):
    """Its weights lie under 'model', as the pretrained ones do."""
    hashed = load_backbone("tiny-k400", checkpoint=write(fine_tuned=True)[0]).weights_hash
    file, _ = write(fine_tuned=True, under="model")
    assert load_backbone("tiny-k400", checkpoint=file).weights_hash == hashed
    with pytest.raises(DataError, match="expected a pretrained VideoMAE, found a fine-tuned one"):
        load_backbone("tiny-pretrained", checkpoint=file)


def test_what_is_known_of_it(write, released, tmp_path):
    backbone = load_backbone("tiny", checkpoint=str(write(fine_tuned=True)[0]))
    assert (backbone.num_frames, backbone.size, backbone.feature_dim, backbone.name) == (4, 32, 24, "tiny")
    assert (backbone.mean, backbone.std) == released.IMAGENET
    described = backbone.describe()
    assert described["pooling"] == "mean of the tokens, then fc_norm"
    assert described["source"] == {
        "kind": "checkpoint",
        "file": "released.pth",
        "layout": "VideoMAE, fine-tuned",
    }
    assert str(tmp_path) not in str(described)


@pytest.mark.parametrize("fine_tuned", [False, True], ids=["pretrained", "fine-tuned"])
@pytest.mark.parametrize("label", ["b", "l"])
def test_the_named_ones_have_the_authors_names_and_shapes(released, label, fine_tuned):
    """Of the full networks, without their weights: every name of the file has its place, and the reverse."""
    width, depth, hidden = {"b": (768, 12, 3072), "l": (1024, 24, 4096)}[label]
    form = REGISTRY[f"videomae-{label}"].checkpoint
    encoder = form.build(fine_tuned=fine_tuned, needed_for="a test")
    layout = form.layout(fine_tuned=fine_tuned, model_names=encoder.state_dict())
    shapes = released.videomae_shapes(
        fine_tuned=fine_tuned, width=width, depth=depth, hidden=hidden, patch=16
    )
    kept = {
        name: shape
        for name, shape in shapes.items()
        if not name.startswith(("decoder", "head", "mask_token"))
    }
    kept.pop("encoder_to_decoder.weight", None)
    assert set(layout.names) == set(kept)
    ours = encoder.state_dict()
    for theirs, shape in kept.items():
        parts = layout.names[theirs]
        assert [tuple(ours[part].shape) for part in parts] == [(shape[0] // len(parts), *shape[1:])] * len(
            parts
        )
    assert sum(parameter.numel() for parameter in encoder.parameters()) > {"b": 8.5e7, "l": 3e8}[label]


def test_position_embeddings_are_those_of_transformers():
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    torch.testing.assert_close(
        sinusoids(1568, 768), get_sinusoid_encoding_table(1568, 768), rtol=0, atol=1e-6
    )


def test_dropped_parts_change_nothing(write):
    file, _ = write(fine_tuned=False)
    before = load_backbone("tiny", checkpoint=file).weights_hash
    changes = {"mask_token": torch.ones(1, 1, 8), "decoder.norm.weight": None}
    file, _ = write(fine_tuned=False, **changes)
    assert load_backbone("tiny", checkpoint=file).weights_hash == before


PREFIX = "encoder.blocks.1."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({PREFIX + "attn.q_bias": None}, r"missing: encoder\.blocks\.1\.attn\.q_bias"),
        (
            {PREFIX + "attn.k_bias": torch.zeros(24)},
            r"names that it does not have: encoder\.blocks\.1\.attn\.k_bias",
        ),
        (
            {"encoder.blocks.2.norm1.weight": torch.ones(24)},
            r"does not have: encoder\.blocks\.2\.norm1\.weight",
        ),
        (
            {PREFIX + "norm1.weight": torch.ones(23)},
            r"another shape: .*norm1\.weight \[23\] in place of \[24\]",
        ),
        ({PREFIX + "norm1.weight": torch.full((24,), torch.nan)}, r"not finite: .*1\.norm1\.weight"),
        ({PREFIX + "norm1.weight": 3}, r"no tensors: .*1\.norm1\.weight"),
    ],
    ids=["missing", "unknown", "deeper", "shape", "nan", "number"],
)
def test_weights_that_do_not_fit_are_named(write, changes, message):
    file, _ = write(fine_tuned=False, **changes)
    with pytest.raises(DataError, match=rf"released\.pth does not fit VideoMAE-B \(pretrained.*{message}"):
        load_backbone("tiny", checkpoint=file)


def test_a_checkpoint_of_another_kind_or_network(write, tmp_path):
    pretrained, _ = write(fine_tuned=False)
    with pytest.raises(DataError, match="expected a fine-tuned VideoMAE, found a pretrained one"):
        load_backbone("tiny-k400", checkpoint=pretrained)
    with pytest.raises(
        DataError, match=r"does not fit VideoMAE-L .*24 blocks of width 1024.*missing: .*more"
    ):
        load_backbone("videomae-l", checkpoint=pretrained)
    fine_tuned, _ = write(fine_tuned=True)
    with pytest.raises(DataError, match="expected a pretrained VideoMAE, found a fine-tuned one"):
        load_backbone("tiny-pretrained", checkpoint=fine_tuned)
    torch.save({"model": {"conv1.weight": torch.ones(3)}}, tmp_path / "resnet.pth")
    with pytest.raises(DataError, match=r"no checkpoint of VideoMAE-B .*found conv1\.weight"):
        load_backbone("tiny", checkpoint=tmp_path / "resnet.pth")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"under 'model' \(pretrained\) or 'module' .* found state_dict"):
        load_backbone("tiny", checkpoint=tmp_path / "other.pth")
    torch.save({"model": [1]}, tmp_path / "list.pth")
    with pytest.raises(DataError, match="a dictionary of weights under 'model', found list"):
        load_backbone("tiny", checkpoint=tmp_path / "list.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(DataError, match="expected a dictionary of weights, found list"):
        load_backbone("tiny", checkpoint=tmp_path / "list.pth")


class Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(names, tmp_path):
    trap = tmp_path / "ran"
    torch.save({"model": {}, "extra": Runs(trap)}, tmp_path / "trap.pth")
    with pytest.raises(DataError, match=r"trap\.pth: refused, since .* more than weights \(\w+\.mkdir\)"):
        load_backbone("tiny", checkpoint=tmp_path / "trap.pth")
    assert not trap.exists()


def test_files_that_are_no_checkpoints(write, tmp_path):
    with pytest.raises(InputError, match=r"none\.pth: no such file"):
        load_backbone("tiny", checkpoint=tmp_path / "none.pth")
    file, _ = write(fine_tuned=False)
    whole = file.read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"released\.pth: (not a complete|refused, since it is damaged)"):
            load_backbone("tiny", checkpoint=file)


def test_names_without_a_file_of_their_own(tmp_path):
    with pytest.raises(InputError, match=r"'r3d-18' has no checkpoint file .* names that have: videomae-b, "):
        load_backbone("r3d-18", checkpoint=tmp_path / "file.pth")
