"""Extraction and online training with the backbone on a GPU: what the CPU gives, and nothing lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="PyAV is not installed (extra video)")

import av

from scalefast.backbones import load_backbone
from scalefast.features import FeatureStore, extract
from scalefast.online import OnlineVideos
from scalefast.training import PretrainConfig, pretrain
from scalefast.video import VideoList, read_ledger, train_recipe

pytestmark = pytest.mark.large
CONFIG = PretrainConfig(
    epochs=2, batch_size=4, views=2, hidden_dim=32, head_dim=32, target_dim=32, precision="fp32", log_every=1,
    checkpoint_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """Six moving patterns in H.264, and a text."""
    folder = tmp_path_factory.mktemp("videos")
    y, x = np.mgrid[0:128, 0:160].astype(np.float32)
    for video in range(6):
        with av.open(folder / f"{video}.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt = 128, 160, "yuv420p"
            for frame in range(80):
                waves = [np.sin((x * (1 + video / 3) + y * (1 + c) + 4 * frame) / 23) for c in range(3)]
                picture = (np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    (folder / "text.mp4").write_text("no video")
    return VideoList.read(folder)


def extracted(videos: VideoList, out: Path, *, device: torch.device, decoder: str) -> FeatureStore:
    backbone = load_backbone("r3d-tiny", device=device, dtype="fp32")
    recipe = train_recipe(num_frames=backbone.num_frames, stride=backbone.stride, size=backbone.size, clips=4)
    extract(
        videos,
        backbone=backbone,
        recipe=recipe,
        out=out,
        decoder=decoder,
        dtype=torch.float32,
        progress=False,
    )
    return FeatureStore.open(out)


@pytest.mark.parametrize("decoder", ["pyav", "dali"])
def test_a_store_by_the_gpu_is_that_of_the_cpu(
    videos: VideoList, cuda: torch.device, tmp_path: Path, decoder: str
) -> None:
    """The same videos, ledger and positions; features to rounding, or as near as DALI's resizing is."""
    if decoder == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed (extra dali)")
    ours = extracted(videos, tmp_path / "gpu", device=cuda, decoder=decoder)
    expected = extracted(videos, tmp_path / "cpu", device=torch.device("cpu"), decoder="pyav")
    assert (ours.ids, ours.ledger) == (expected.ids, expected.ledger) and len(ours) == 6
    assert torch.equal(ours.positions.tensor(), expected.positions.tensor())
    one, other = ours.features.tensor().flatten(0, 1), expected.features.tensor().flatten(0, 1)
    cosine = torch.nn.functional.cosine_similarity(one, other)
    assert cosine.min() > (0.9999 if decoder == "pyav" else 0.99)


@pytest.mark.parametrize("keep", [False, True], ids=["fresh", "kept"])
def test_online_training_on_the_gpu(
    videos: VideoList, cuda: torch.device, tmp_path: Path, keep: bool
) -> None:
    """It overlaps decoding, backbone and step, leaves out the text, and ends as one on the CPU begins."""
    losses = []
    for name, device in (("gpu", cuda), ("cpu", torch.device("cpu"))):
        backbone = load_backbone("r3d-tiny", device=device, dtype="fp32")
        recipe = train_recipe(
            num_frames=backbone.num_frames, stride=backbone.stride, size=backbone.size, clips=4
        )
        source = OnlineVideos(
            videos=videos, backbone=backbone, recipe=recipe, keep=tmp_path / f"{name}-store" if keep else None
        )
        result = pretrain(source, out=tmp_path / name, config=CONFIG, device=device, progress=False)
        losses.append(result.losses["loss"])
        rows = {row.path: row.status for row in read_ledger(tmp_path / name / "ledger.csv")}
        assert rows.get("text.mp4", "bad") == "bad"
        if device.type == "cuda":
            assert any("not captured" in note for note in result.notes)
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
