"""Representations against the model's own output, one video at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scalefast import SCALE
from scalefast.calibration import masked_mean, masked_std
from scalefast.errors import DataError, InputError
from scalefast.evaluation import REPRESENTATIONS, represent, represent_as, represent_clips
from scalefast.evaluation._pooling import masked_max


def _mean(clips: torch.Tensor) -> torch.Tensor:
    return clips.mean(0)


def _std(clips: torch.Tensor) -> torch.Tensor:
    return clips.std(0, unbiased=False)


def _course(clips: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Ridge regression on three cosines of relative time, written out in fp64."""
    begin, end = positions.double()[:, 5], positions.double()[:, 6]
    times = ((begin + end) / 2 - begin.min()) / (end.max() - begin.min())
    waves = torch.stack([torch.cos(torch.pi * k * times) for k in (1, 2, 3)], dim=1)
    waves = waves - waves.mean(0)
    inverse = torch.linalg.inv(waves.T @ waves / len(clips) + 0.025 * torch.eye(3))
    return (inverse @ waves.T @ clips.double() / len(clips)).flatten().float()


def alone(model: SCALE, store: Any, row: int) -> dict[str, torch.Tensor]:
    """What METHOD says of one video, written plainly."""
    features, positions, lengths = store.sets([row])
    clips = int(lengths)
    with torch.no_grad():
        output = model(features[:, :clips], positions[:, :clips])
    ensemble = output.ensemble[0]
    parts = [ensemble[:, : store.feature_dim].mean(0), output.clips[0].mean(0), output.video[0]]
    return {
        "mean": features[0, :clips].float().mean(0),
        "mean_std": torch.cat([f(features[0, :clips].float()) for f in (_mean, _std)]),
        "mean_time": torch.cat(
            [_mean(features[0, :clips].float()), _course(features[0, :clips], positions[0, :clips])]
        ),
        "max": features[0, :clips].float().max(0).values,
        "refined": output.clips[0].mean(0),
        "cls": output.video[0],
        "ensemble": ensemble.mean(0),
        "recommended": torch.cat([part / part.norm() for part in parts]),
    }


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("batch_clips", [1, 48, 4096])
def test_rows_are_those_of_each_video_alone(
    make_store: Any, model: SCALE, ragged: bool, batch_clips: int
) -> None:
    store = make_store("videos", videos=11, ragged=ragged)
    whole = represent(model, store, batch_clips=batch_clips)
    assert len(whole) == 11
    for row in range(11):
        for name, expected in alone(model, store, row).items():
            torch.testing.assert_close(whole[name][row], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("ragged", [False, True])
def test_clips_average_to_their_video(make_store: Any, model: SCALE, ragged: bool) -> None:
    store = make_store("videos", videos=7, ragged=ragged)
    whole = represent(model, store)
    clips, videos = represent_clips(model, store, batch_clips=40)
    assert torch.equal(torch.bincount(videos), store.lengths)
    for row in range(7):
        for name in ("mean", "mean_std", "mean_time", "max", "refined", "cls", "ensemble"):
            mean = clips[name][videos == row].mean(0)
            torch.testing.assert_close(mean, whole[name][row], atol=2e-5, rtol=1e-4)
    first = store.sets([0]).features[0, : store.lengths[0]]
    assert torch.equal(clips.mean[videos == 0], first.float())


def test_fp16_features_are_averaged_in_fp32(make_store: Any, model: SCALE) -> None:
    features = (torch.randn(5, 16, 24) * 20 + 300).half()
    store = make_store("half", videos=5, features=features)
    assert torch.equal(represent(model, store).mean, features.float().sum(1) / 16)


def test_dropout_is_off_and_the_mode_comes_back(make_store: Any, model: SCALE) -> None:
    store = make_store("videos", videos=6)
    expected = represent(model, store).ensemble
    model.train()
    assert torch.equal(represent(model, store).ensemble, expected)
    assert model.training


def test_mode_comes_back_after_an_error(make_store: Any, model: SCALE) -> None:
    model.train()
    with pytest.raises(InputError):
        represent(model, make_store("videos", dim=5))
    assert model.training


def test_other_width_is_refused(make_store: Any, model: SCALE) -> None:
    store = make_store("wide", dim=25)
    with pytest.raises(InputError, match=r"wide: its features have 25 dimensions, .* was trained on 24"):
        represent(model, store)


@pytest.mark.parametrize("column", ["feature", "position"])
def test_nan_names_the_video(model: SCALE, column: str) -> None:
    """Stores refuse NaN when they are written; one that got in all the same is found."""
    sets = {"feature": torch.zeros(3, 4, 24), "position": torch.zeros(3, 4, 7)}
    sets[column][1, 2, 3] = torch.nan
    store = SimpleNamespace(
        path="broken",
        feature_dim=24,
        ids=("a", "b", "c"),
        lengths=torch.full((3,), 4),
        sets=lambda rows: (sets["feature"][rows], sets["position"][rows], torch.full((3,), 4)),
        __len__=lambda: 3,
    )
    store_class = type("Store", (SimpleNamespace,), {"__len__": lambda self: 3})
    with pytest.raises(DataError, match=rf"broken: a {column} of video 'b' is NaN or infinite"):
        represent(model, store_class(**vars(store)))


def test_model_with_nan_is_refused(make_store: Any, model: SCALE) -> None:
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    store = make_store("videos", videos=4)
    with pytest.raises(DataError, match=r"the model's output for a clip of video 'videos/000\.mp4' is NaN"):
        represent(model, store)


def test_unknown_name_lists_the_known(make_store: Any, model: SCALE) -> None:
    whole = represent(model, make_store("videos", videos=4))
    with pytest.raises(InputError, match=", ".join(REPRESENTATIONS)):
        whole["median"]


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_one_representation_alone_is_the_same(model: SCALE, make_store: Any, representation: Any) -> None:
    store = make_store("ragged", videos=9, ragged=True)
    alone = represent_as(model, store, representation=representation, batch_clips=20)
    assert torch.equal(alone, represent(model, store, batch_clips=20)[representation])


def test_all_clips_at_hand_need_no_mask() -> None:
    """The short way gives the bits of the masked one."""
    values = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(5, 7, dtype=torch.bool)
    for pool in (masked_mean, masked_std, masked_max):
        assert torch.equal(pool(values, None), pool(values, everywhere))
