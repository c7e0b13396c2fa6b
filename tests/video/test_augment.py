"""Augmentations: one draw for all frames, each part against an independent formula, and what the draws depend on."""

from __future__ import annotations

import colorsys
import dataclasses
import math

import numpy as np
import pytest
import torch

from scalefast.errors import InputError
from scalefast.video import (
    Augmentation,
    AugmentationRecipe,
    augment,
    byol_augmentation,
    cvrl_augmentation,
    draw_augmentations,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def clips(request):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 24, 20, 3), generator=g, dtype=torch.uint8).to(request.param)


def changed(clips, **what):
    return augment(clips, [Augmentation(**what)] * len(clips)).cpu().numpy().astype(float)


def levels(values):
    return np.clip(values, 0.0, 1.0) * 255.0


def luma(x):
    return x @ np.array([0.299, 0.587, 0.114])


def test_nothing_drawn_changes_nothing(clips):
    assert torch.equal(augment(clips, [Augmentation()] * 4), clips)


def test_brightness_contrast_and_saturation(clips):
    x = clips.cpu().numpy() / 255.0
    assert np.abs(changed(clips, brightness=1.5) - levels(1.5 * x)).max() <= 0.51
    mean = luma(x).mean((1, 2, 3))[:, None, None, None, None]
    assert np.abs(changed(clips, contrast=0.3) - levels(mean + 0.3 * (x - mean))).max() <= 0.51
    gray = luma(x)[..., None]
    assert np.abs(changed(clips, saturation=1.7) - levels(gray + 1.7 * (x - gray))).max() <= 0.51
    assert np.abs(changed(clips, gray=True) - levels(gray)).max() <= 0.51


@pytest.mark.parametrize("turns", [0.13, -0.2, 0.5])
def test_hue_is_colorsys(clips, turns):
    got = changed(clips[:1, :1], hue=turns)[0, 0]
    x = clips[0, 0].cpu().numpy() / 255.0
    for pixel, found in zip(x.reshape(-1, 3), got.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        assert np.abs(np.array(colorsys.hsv_to_rgb((h + turns) % 1.0, s, v)) * 255.0 - found).max() <= 0.51


def test_solarise(clips):
    x = clips.cpu().numpy()
    assert np.abs(changed(clips, solarise=True) - np.where(x < 127.5, x, 255 - x)).max() == 0


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_is_a_gaussian_sum(sigma):
    """Against sums over single pixels; 40 rows give a kernel of 5 pixels."""
    clips = torch.randint(0, 256, (1, 2, 40, 12, 3), dtype=torch.uint8, generator=torch.manual_seed(1))
    got = changed(clips, sigma=sigma)
    weights = np.array([math.exp(-(d**2) / (2 * sigma**2)) for d in range(-2, 3)])
    weights /= weights.sum()
    x = clips.numpy().astype(float)
    for y, z in [(0, 0), (5, 7), (39, 11), (1, 10)]:
        total = 0.0
        for dy, dz in np.ndindex(5, 5):
            row, column = y + dy - 2, z + dz - 2
            row = -row if row < 0 else 78 - row if row > 39 else row
            column = -column if column < 0 else 22 - column if column > 11 else column
            total = total + weights[dy] * weights[dz] * x[0, :, row, column]
        assert np.abs(got[0, :, y, z] - total).max() <= 0.51


def test_one_draw_for_all_frames_and_clips_do_not_mix(clips):
    still = clips[:, :1].expand(-1, 3, -1, -1, -1).contiguous()
    drawn = draw_augmentations(cvrl_augmentation(1), seed=3, video_id="a", clips=4)
    out = augment(still, drawn)
    assert torch.equal(out, out[:, :1].expand_as(out))
    alone = torch.cat([augment(clips[i : i + 1], [drawn[i]]) for i in range(4)])
    together = augment(clips, drawn)
    assert (alone.int() - together.int()).abs().max() <= 1
    assert not torch.equal(together, clips)


def test_the_drawn_order_matters(clips):
    parts = dict(brightness=1.7, contrast=0.4, saturation=1.6, hue=0.2)
    one = changed(clips, **parts, order=(0, 1, 2, 3))
    other = changed(clips, **parts, order=(3, 2, 1, 0))
    assert np.abs(one - other).max() > 5


def test_draws_have_the_stated_probabilities_and_ranges():
    first = [
        a
        for i in range(500)
        for a in draw_augmentations(cvrl_augmentation(1), seed=1, video_id=f"{i}", clips=4)
    ]
    second = [
        a
        for i in range(500)
        for a in draw_augmentations(cvrl_augmentation(2), seed=1, video_id=f"{i}", clips=4)
    ]
    share = lambda drawn, test: sum(map(test, drawn)) / len(drawn)  # noqa: E731
    assert share(first, lambda a: a.sigma > 0) == 1.0 and share(first, lambda a: a.solarise) == 0.0
    assert 0.07 < share(second, lambda a: a.sigma > 0) < 0.13
    assert 0.16 < share(second, lambda a: a.solarise) < 0.24
    for drawn in (first, second):
        assert 0.16 < share(drawn, lambda a: a.gray) < 0.24
        jittered = [a for a in drawn if a.brightness != 1.0]
        assert 0.77 < len(jittered) / len(drawn) < 0.83
        for name, low, high in (("brightness", 0.2, 1.8), ("contrast", 0.2, 1.8), ("hue", -0.2, 0.2)):
            values = np.array([getattr(a, name) for a in jittered])
            assert (
                low <= values.min() < low + 0.05 * (high - low)
                and high - 0.05 * (high - low) < values.max() <= high
            )
            assert np.histogram(values, 5, (low, high))[0].min() > 0.15 * len(values)
        assert len({a.order for a in jittered}) == 24
    assert {a.sigma for a in draw_augmentations(byol_augmentation(), seed=1, video_id="a", clips=64)} > {0.0}


def test_draws_depend_on_seed_epoch_video_and_clip_alone():
    take = lambda **change: draw_augmentations(  # noqa: E731
        cvrl_augmentation(1), **{"seed": 1, "video_id": "a", "clips": 3, **change}
    )
    assert take() == take() == take(clips=5)[:3]
    assert len({take()[0], take()[1], take(seed=2)[0], take(epoch=1)[0], take(video_id="b")[0]}) == 5


def test_bad_input_is_named(clips):
    with pytest.raises(InputError, match=r"uint8 \[N, T, H, W, 3\]; got \(4, 3, 24, 20, 3\), torch.float32"):
        augment(clips.float(), [Augmentation()] * 4)
    with pytest.raises(InputError, match="expected 4 augmentations"):
        augment(clips, [Augmentation()])
    with pytest.raises(InputError, match="view 1 or 2, got 3"):
        cvrl_augmentation(3)
    with pytest.raises(InputError, match="low <= high for area"):
        AugmentationRecipe(area=(0.5, 0.2), aspect=(1, 1))
    with pytest.raises(InputError, match="a probability for gray"):
        dataclasses.replace(byol_augmentation(), gray=1.2)
    with pytest.raises(InputError, match=r"hue in \[0, 0\.5\]"):
        dataclasses.replace(byol_augmentation(), hue=0.6)
    assert augment(clips[:0], []).shape == (0, 3, 24, 20, 3)
