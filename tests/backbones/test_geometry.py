"""Other lengths and sizes: positions resized by the stated rule, for files and folders alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from scalefast.backbones import REGISTRY, NamedBackbone, load_backbone
from scalefast.backbones.geometry import fit_to, resize_table
from scalefast.backbones.slow import SlowFile, SlowR50
from scalefast.backbones.spec import BackboneSpec
from scalefast.backbones.svt import SVTFile
from scalefast.backbones.videomae import VideoMAEFile
from scalefast.errors import InputError


def weights(old: int, new: int, *, cubic: bool) -> np.ndarray:
    """[new, old]: how much of each old place goes into a new one; centres at half pixels, edges repeated."""
    matrix = np.zeros((new, old))
    for i in range(new):
        at = (i + 0.5) * old / new - 0.5
        if not cubic:
            at = max(at, 0.0)
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            d, a = abs(at - j), -0.75
            if not cubic:
                w = max(0.0, 1 - d)
            elif d <= 1:
                w = (a + 2) * d**3 - (a + 3) * d**2 + 1
            else:
                w = a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
            matrix[i, min(max(j, 0), old - 1)] += w
    return matrix


def resized(table: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    grid = table.double().numpy().reshape(old[0], old[1], old[1], -1)
    over_time = weights(old[0], new[0], cubic=False)
    over_space = weights(old[1], new[1], cubic=True)
    out = np.einsum("at,bh,cw,thwd->abcd", over_time, over_space, over_space, grid)
    return torch.from_numpy(out.reshape(1, -1, grid.shape[-1]))


@pytest.mark.parametrize(
    ("old", "new"),
    [((2, 4), (2, 7)), ((3, 4), (5, 4)), ((4, 5), (2, 3)), ((1, 3), (4, 5)), ((8, 14), (16, 16))],
)
def test_tables_are_resized_bicubic_in_space_and_linear_in_time(old, new):
    table = torch.randn(1, old[0] * old[1] ** 2, 6, generator=torch.Generator().manual_seed(0))
    expected = resized(table, old, new)
    torch.testing.assert_close(resize_table(table, old=old, new=new), expected.float(), rtol=1e-5, atol=1e-5)


def test_the_same_grid_is_left_as_it_is():
    table = torch.randn(1, 3 * 16, 5)
    assert torch.equal(resize_table(table, old=(3, 4), new=(3, 4)), table)


@pytest.fixture
def write(released, tmp_path, monkeypatch):
    """`write(kind)`: (file, state) of a tiny network, which the backbone `tiny` reads."""

    def to_file(kind):
        small = {"width": 24, "depth": 2, "heads": 2, "mlp": 40, "num_frames": 4, "size": 32, "patch": 8}
        shapes = {"width": 24, "depth": 2, "hidden": 40, "patch": 8}
        if kind == "videomae":
            form, state = (
                VideoMAEFile(**small),
                released.drawn(released.videomae_shapes(fine_tuned=True, **shapes)),
            )
            content = {"module": state}
        elif kind == "svt":
            form, state = (
                SVTFile(**small),
                released.drawn(released.svt_shapes(patches=16, frames=4, **shapes)),
            )
            content = state
        else:
            size = {"width": 4, "blocks": (1, 1, 1, 1)}
            form, state = (
                SlowFile(num_frames=4, size=32, **size),
                released.drawn(released.slow_shapes(at="backbone_hist.", **size)),
            )
            content = {"model_state": state}
        monkeypatch.setitem(REGISTRY, "tiny", NamedBackbone(summary="", checkpoint=form))
        torch.save(content, tmp_path / "file.pth")
        return tmp_path / "file.pth", state

    return to_file


GEOMETRIES = [{"num_frames": 6}, {"size": 48}, {"num_frames": 2, "size": 24}, {"num_frames": 8, "size": 40}]


def plain(released, kind, batch, state):
    if kind == "svt":
        return released.svt(batch, state, heads=2)
    if kind == "videomae":
        new = (batch.shape[1] // 2, batch.shape[2] // 8)
        return released.videomae(
            batch, state, heads=2, fine_tuned=True, positions=lambda table: resized(table, (2, 4), new)[0]
        )
    at = "backbone_hist."
    return released.slow(batch, {name.removeprefix(at): value for name, value in state.items()})


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("kind", ["videomae", "svt", "slow"])
def test_features_equal_those_of_a_plain_network(write, released, clips, kind, geometry):
    if kind != "slow":
        pytest.importorskip("transformers")
    file, state = write(kind)
    backbone = load_backbone("tiny", checkpoint=file, dtype="fp32", **geometry)
    assert (backbone.num_frames, backbone.size) == (geometry.get("num_frames", 4), geometry.get("size", 32))
    batch = clips(backbone, 2)
    expected = plain(released, kind, batch, state)
    torch.testing.assert_close(backbone(batch), expected.float(), rtol=1e-5, atol=1e-5)
    # the weights are the same ones, but their features are of another kind
    native = load_backbone("tiny", checkpoint=file)
    assert backbone.weights_hash == native.weights_hash
    assert backbone.describe()["identity"] != native.describe()["identity"]


@pytest.mark.parametrize("class_name", ["VideoMAEModel", "TimesformerModel", "VJEPA2Model"])
def test_folders_of_transformers_take_other_clips_too(originals, clips, class_name):
    folder, _ = originals(class_name)
    native = load_backbone(folder, dtype="fp32")
    other = load_backbone(folder, dtype="fp32", num_frames=6, size=48)
    features = other(clips(other, 2))
    assert features.shape == (2, 24) and features.isfinite().all()
    assert other.weights_hash == native.weights_hash
    # and back again it is the native network
    back = fit_to(other.encoder, other.spec, num_frames=4, size=32)
    assert back == native.spec
    if class_name != "VideoMAEModel":  # whose table was resized twice by then
        other.spec = back
        assert torch.equal(other(clips(native, 2)), native(clips(native, 2)))


def test_rotary_positions_count_on(originals):
    """V-JEPA 2 at another size computes what one configured for it computes with the same weights."""
    import transformers

    folder, model = originals("VJEPA2Model")
    config = transformers.VJEPA2Config(**(model.config.to_dict() | {"crop_size": 48, "frames_per_clip": 6}))
    larger = transformers.VJEPA2Model(config).eval()
    larger.load_state_dict(model.state_dict())
    backbone = load_backbone(folder, dtype="fp32", num_frames=6, size=48)
    pixels = torch.randn(2, 3, 6, 48, 48)
    with torch.no_grad():
        expected = larger.get_vision_features(pixels.transpose(1, 2)).mean(1)
        torch.testing.assert_close(backbone.encoder(pixels), expected, rtol=1e-5, atol=1e-5)


def test_networks_of_convolutions_take_any(clips):
    backbone = load_backbone("r3d-18", num_frames=8, size=64)
    assert backbone(clips(backbone, 1)).shape == (1, 512)
    assert backbone.encoder.config.num_frames == 8 and backbone.describe()["size"] == 64
    with pytest.raises(InputError, match="the motion-energy stem needs a size"):
        load_backbone("r3d-tiny", size=20)


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"size": 36}, r"'tiny': size must be a multiple of its patches of 8 pixels, two at least, got 36"),
        ({"size": 8}, "two at least, got 8"),
        ({"num_frames": 5}, "num_frames must be a multiple of the 2 frames that a patch spans, got 5"),
        ({"num_frames": 0}, "num_frames must be a positive integer, got 0"),
        ({"size": 32.0}, r"size must be a positive integer, got 32\.0"),
    ],
)
def test_geometries_that_cannot_be_are_refused(write, geometry, message):
    pytest.importorskip("transformers")
    file, _ = write("videomae")
    with pytest.raises(InputError, match=message):
        load_backbone("tiny", checkpoint=file, **geometry)


def test_a_network_of_another_kind_keeps_its_own():
    spec = BackboneSpec(
        name="mine", architecture="Mine", feature_dim=4, num_frames=2, stride=1, size=8,
        mean=(0, 0, 0), std=(1, 1, 1), pooling="mean",
    )  # fmt: skip
    assert fit_to(nn.Identity(), spec, num_frames=2, size=None) is spec
    with pytest.raises(InputError, match=r"'mine' takes clips of 2 frames of 8 x 8 pixels only"):
        fit_to(nn.Identity(), spec, num_frames=4, size=None)
    assert fit_to(SlowR50(width=1), spec, num_frames=4, size=16).size == 16
