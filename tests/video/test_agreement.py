"""What a backbone makes of clips hardly depends on who decoded them: 38 dB and cosine .999 on filmed videos."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from scalefast import load_backbone
from scalefast.backbones import FrozenBackbone
from scalefast.errors import MissingExtraError
from scalefast.video import ClipRecipe, VideoEntry, load_clips, load_clips_by_dali, train_recipe
from scalefast.video._decode import check_decoder

# Videos that move: of one that stands still r3d-tiny, which sees motion alone, sees the noise (cosine .99).
FILMED = ("mmaction2__demo.mp4", "mmaction2__test.mp4", "mmaction2__part_0.mp4")


@pytest.fixture(scope="module")
def backbone() -> FrozenBackbone:
    return load_backbone("r3d-tiny", device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def recipe(backbone: FrozenBackbone) -> ClipRecipe:
    return train_recipe(num_frames=backbone.num_frames, stride=backbone.stride, size=backbone.size, clips=4)


def _by_torchcodec(path: Path, recipe: ClipRecipe) -> np.ndarray:
    try:
        check_decoder("torchcodec")
    except MissingExtraError as error:
        pytest.skip(str(error))
    loaded = load_clips(path, recipe, seed=0, video_id=path.name, decoder="torchcodec")
    assert loaded.meta.decoder == "torchcodec"
    return loaded.clips


def _by_dali(path: Path, recipe: ClipRecipe) -> np.ndarray:
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        pytest.skip("DALI is not installed (extra dali)")
    entry = VideoEntry(id=path.name, path=path)
    (outcome,) = load_clips_by_dali([entry], recipe, seed=0, device="cpu", workers=1)
    return outcome.result().clips.numpy()


@pytest.mark.parametrize("decode", [_by_torchcodec, _by_dali], ids=["torchcodec", "dali"])
@pytest.mark.parametrize("name", FILMED)
def test_features(shared_data: Path, backbone: FrozenBackbone, recipe: ClipRecipe, name: str, decode) -> None:
    path = shared_data / "videos" / name
    expected = load_clips(path, recipe, seed=0, video_id=name).clips
    clips = decode(path, recipe)
    error = np.mean((clips.astype(np.float64) - expected) ** 2)
    assert 10 * np.log10(255**2 / error) >= 38
    one, other = (backbone(torch.from_numpy(given)) for given in (clips, expected))
    assert torch.nn.functional.cosine_similarity(one, other).min() >= 0.999
    apart = torch.nn.functional.cosine_similarity(other, other.roll(1, 0)).min()
    assert apart < 0.999, "the bound tells clips apart"
