"""Who decodes: the same videos, ledger and positions, and a store that says so where pixels may differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalefast.errors import InputError, MissingExtraError, StoreError
from scalefast.features import FeatureStore, extract_on_ray
from scalefast.video import VideoList
from scalefast.video._decode import check_decoder


def files_of(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


@pytest.fixture
def smooth_folder(tmp_path: Path, render_video: Callable[..., Path]) -> Path:
    """Five videos, of which one is short and one is text."""
    folder = tmp_path / "videos"
    for number in range(3):
        render_video(folder / "c" / f"{number}.mp4", seed=number, frames=20)
    render_video(folder / "c" / "short.mp4", seed=7, frames=3)
    (folder / "c" / "text.mp4").write_text("no video")
    return folder


def test_torchcodec(tiny: Any, smooth_folder: Path, tmp_path: Path) -> None:
    """As DALI's: it resizes RGB, which changes pixels slightly, so a store is not gone on with by another decoder."""
    try:
        check_decoder("torchcodec")
    except MissingExtraError as error:
        pytest.skip(str(error))
    for decoder in ("pyav", "torchcodec"):
        tiny.extract(smooth_folder, tmp_path / decoder, tmp_path / "log", decoder=decoder, workers=1)
    ours, other = FeatureStore.open(tmp_path / "pyav"), FeatureStore.open(tmp_path / "torchcodec")
    assert (ours.ids, ours.ledger) == (other.ids, other.ledger)
    assert torch.equal(ours.positions.tensor(), other.positions.tensor())
    assert np.allclose(ours.features.float(), other.features.float(), atol=0.1)
    assert other.provenance["decoder"] == "torchcodec"
    with pytest.raises(StoreError, match="Different: decoder: 'torchcodec' there, None now"):
        tiny.extract(smooth_folder, tmp_path / "torchcodec", tmp_path / "log", decoder="pyav")


def test_dali_without_a_gpu(tiny: Any, smooth_folder: Path, tmp_path: Path) -> None:
    """Videos, ledger and positions are PyAV's, features almost; reproducible, and not to be mixed within a store."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install 'scalefast[dali]'")
    for name, decoder in {"pyav": "pyav", "dali": "dali", "again": "dali"}.items():
        summary = tiny.extract(smooth_folder, tmp_path / name, tmp_path / "log", decoder=decoder)
        assert (summary.ok, summary.short, summary.bad) == (3, 1, 1)
    assert files_of(tmp_path / "dali") == files_of(tmp_path / "again")
    ours, dali = FeatureStore.open(tmp_path / "pyav"), FeatureStore.open(tmp_path / "dali")
    assert (ours.ids, ours.ledger) == (dali.ids, dali.ledger)
    assert torch.equal(ours.positions.tensor(), dali.positions.tensor())
    assert np.allclose(ours.features.float(), dali.features.float(), atol=0.1)
    assert dali.provenance["decoder"] == "dali on cpu" and "decoder" not in ours.provenance
    with pytest.raises(StoreError, match="Different: decoder: 'dali on cpu' there, None now"):
        tiny.extract(smooth_folder, tmp_path / "dali", tmp_path / "log", decoder="pyav")


def test_unfitting_decoders(tiny: Any, smooth_folder: Path, tmp_path: Path) -> None:
    """Refused before anything is written."""
    with pytest.raises(InputError, match="decoder = 'opencv': expected one of auto, pyav, torchcodec, dali"):
        tiny.extract(smooth_folder, tmp_path / "s", tmp_path / "log", decoder="opencv")
    with pytest.raises(InputError, match="on Ray CPU actors decode"):
        extract_on_ray(
            VideoList.read(smooth_folder),
            load=lambda device: tiny.TinyBackbone(),
            recipe=tiny.recipe(),
            out=tmp_path / "s",
            decoder="dali",
        )
    assert not (tmp_path / "s").exists()
