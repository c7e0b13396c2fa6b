"""What a calibrated model is fitted to: scale of its inputs, means and weights of its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scalefast import SCALE, FeatureStore
from scalefast.calibration import CERTAIN, calibrate, combine, parts, scale_inputs
from scalefast.evaluation import represent, represent_clips


@pytest.fixture
def model() -> SCALE:
    torch.manual_seed(0)
    return SCALE(12, hidden_dim=32, num_layers=1, center_sets=True, calibrated=True).eval()


def make(path, features) -> FeatureStore:
    return FeatureStore.create(path, features=features)


@pytest.mark.parametrize("center_sets", [True, False])
def test_inputs_get_unit_variance(tmp_path, center_sets):
    random = torch.Generator().manual_seed(0)
    features = (
        40 + 7 * torch.randn(50, 1, 12, generator=random) + 3 * torch.randn(50, 9, 12, generator=random)
    )
    model = SCALE(12, hidden_dim=32, center_sets=center_sets, calibrated=True)
    scale_inputs(model, make(tmp_path / "s", features))
    inputs = model.inputs(features)
    assert inputs.var(dim=(0, 1), correction=0).mean().item() == pytest.approx(1.0, abs=1e-4)


def test_times_in_seconds_are_scaled_to_the_longest(model, tmp_path):
    random = torch.Generator().manual_seed(5)
    features, positions = torch.randn(6, 4, 12, generator=random), torch.rand(6, 4, 7, generator=random)
    seconds = positions.clone()
    seconds[..., 5:] *= 900 / positions[..., 5:].max()
    stores = [
        FeatureStore.create(tmp_path / name, features=features, positions=p)
        for name, p in (("fraction", positions / positions[..., 5:].max()), ("seconds", seconds))
    ]
    scale_inputs(model, stores[0])
    assert float(model.time_scale) == 1.0
    scale_inputs(model, stores[1])
    assert float(model.time_scale) == pytest.approx(1 / 900)
    relative = seconds.clone()
    relative[..., 5:] /= 900
    long = model(features, seconds).video
    model.time_scale.fill_(1.0)
    torch.testing.assert_close(long, model(features, relative).video)


def test_parts_are_centred_of_length_one_and_weighted(model, tmp_path):
    random = torch.Generator().manual_seed(1)
    store = make(tmp_path / "s", 5 + torch.randn(30, 8, 12, generator=random))
    calibrate(model, store)
    values = parts(model, *store.sets())
    torch.testing.assert_close(model.part_means, values.mean(0))
    pieces = [F.normalize(part - part.mean(0), dim=1) for part in values.split([12, 32, 32, 32], dim=1)]
    expected = torch.cat([w * part for w, part in zip(model.part_weights, pieces, strict=True)], dim=1)
    torch.testing.assert_close(combine(model, values), expected)
    torch.testing.assert_close(represent(model, store).recommended, expected, atol=1e-5, rtol=1e-5)


def test_a_part_that_halves_of_a_video_disagree_on_has_no_say(model, tmp_path):
    random = torch.Generator().manual_seed(2)
    noise = make(tmp_path / "noise", torch.randn(300, 16, 12, generator=random))
    calibrate(model, noise)
    assert float(model.part_weights[0]) == 1.0
    assert model.part_weights[1:].tolist() == [0.0, 0.0, 0.0]
    directions = torch.randn(300, 1, 12, generator=random)
    clear = directions * torch.linspace(-1, 1, 8).repeat_interleave(2)[None, :, None]
    calibrate(model, make(tmp_path / "clear", clear))
    assert model.part_weights[1:].tolist() == [1.0, 1.0, 1.0]


def test_weights_are_the_agreement_of_the_halves(model, tmp_path):
    random = torch.Generator().manual_seed(3)
    features = torch.randn(40, 6, 12, generator=random) + torch.linspace(0, 0.2, 6)[None, :, None]
    store = make(tmp_path / "s", features)
    calibrate(model, store)
    x, p, _ = store.sets()
    halves = [represent_part(model, x[:, i::2], p[:, i::2]) for i in (0, 1)]
    for place, (a, b) in enumerate(zip(*halves, strict=True)):
        cosines = F.cosine_similarity(a - a.mean(0), b - b.mean(0)).numpy()
        beyond = cosines.mean() - 3 * cosines.std() / np.sqrt(40)
        expected = 1.0 if place == 0 else min(1.0, max(0.0, beyond / CERTAIN))
        assert model.part_weights[place].item() == pytest.approx(expected, abs=1e-4)


def represent_part(model, x, p):
    with torch.no_grad():
        out = model(x, p)
    return x.mean(1), out.clips.mean(1), out.clips.std(1, correction=0), out.video


def test_sets_of_different_lengths_and_of_one_clip(model, tmp_path):
    random = torch.Generator().manual_seed(4)
    clips = [torch.randn(1 + i % 4, 12, generator=random) for i in range(20)]
    store = make(tmp_path / "s", clips)
    scale_inputs(model, store)
    calibrate(model, store)
    vectors = represent(model, store).recommended
    assert vectors.shape == (20, 12 + 3 * 32) and bool(vectors.isfinite().all())
    rows, videos = represent_clips(model, store)
    assert rows.recommended.shape == (int(store.lengths.sum()), 108) and len(videos) == len(rows)
    calibrate(model, make(tmp_path / "single", torch.randn(5, 1, 12, generator=random)))
    assert model.part_weights.tolist() == [1.0] * 4
