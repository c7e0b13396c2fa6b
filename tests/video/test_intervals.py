"""CVRL's pair of clips: the interval's density, the places of both clips, and what the draws depend on."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefast.errors import InputError
from scalefast.video import (
    AugmentationRecipe,
    VideoMeta,
    cvrl_augmentation,
    decode_clips,
    draw_interval,
    probe,
    sample_clip_pair,
    train_recipe,
)

META = VideoMeta(num_frames=300, fps=30.0, height=256, width=340)
RECIPE = train_recipe(num_frames=16, stride=2.0)
AUGMENTATION = cvrl_augmentation(1)


def pairs(meta=META, *, count, power=1.0, recipe=RECIPE):
    return [
        sample_clip_pair(meta, recipe, AUGMENTATION, seed=5, video_id=f"video {i}", power=power)
        for i in range(count)
    ]


@pytest.mark.parametrize("power", [1.0, 0.5, 3.0])
def test_intervals_have_the_stated_density(power):
    """Chi-square over ten bins of equal width against the distribution function."""
    draws = np.random.default_rng(0).random(20_000)
    drawn = np.array([draw_interval(u, longest=270.0, power=power) for u in draws])
    edges = np.linspace(0.0, 1.0, 11)
    cumulative = ((power + 1) * edges - edges ** (power + 1)) / power
    expected = 20_000 * np.diff(cumulative)
    seen, _ = np.histogram(drawn / 270.0, edges)
    assert ((seen - expected) ** 2 / expected).sum() < 27.9  # .999 of chi-square with 9 degrees of freedom


@given(u=st.floats(0, 1), longest=st.floats(0, 1e6), power=st.floats(0.05, 20))
def test_intervals_stay_in_range_and_grow_with_u(u, longest, power):
    k = draw_interval(u, longest=longest, power=power)
    assert 0.0 <= k <= longest * (1 + 1e-12)
    assert k <= draw_interval(min(u + 0.1, 1.0), longest=longest, power=power) + 1e-9 * longest


def test_intervals_of_sampled_pairs_have_that_density_too():
    """The paper's: mean M / 3, and both orders alike."""
    gaps = np.array([(b.t0 - a.t0) * 30.0 for a, b in pairs(count=4000)])
    longest = 300 - 15 * 2
    assert abs(np.abs(gaps).mean() - longest / 3) < 3.0
    assert 0.46 < (gaps < 0).mean() < 0.54
    edges = np.linspace(0.0, 1.0, 7)
    expected = 4000 * np.diff(2 * edges - edges**2)
    seen, _ = np.histogram(np.abs(gaps) / longest, edges)
    assert ((seen - expected) ** 2 / expected).sum() < 25.0  # whole frames: a little more than 20.5 (.999)


@given(
    frames=st.integers(1, 400),
    fps=st.sampled_from([12.5, 24.0, 25.0, 30.0, 59.94]),
    num_frames=st.integers(1, 32),
    stride=st.sampled_from([1.0, 2.0, 4.0]),
    name=st.text(max_size=5),
)
def test_frames_exist_and_step_evenly(frames, fps, num_frames, stride, name):
    meta = dataclasses.replace(META, num_frames=frames, fps=fps)
    recipe = train_recipe(num_frames=num_frames, stride=stride)
    step = stride * fps / 30.0
    for clip in sample_clip_pair(meta, recipe, AUGMENTATION, seed=1, video_id=name):
        assert len(clip.frames) == num_frames
        assert all(0 <= frame < frames for frame in clip.frames)
        steps = [(b - a) % frames for a, b in itertools.pairwise(clip.frames)]
        assert all(abs((s - step + frames / 2) % frames - frames / 2) < 1.0 for s in steps)
        if frames - (num_frames - 1) * step >= 1.0:
            assert list(clip.frames) == sorted(clip.frames)
        top, left, tall, wide = clip.box
        assert 0 <= top <= top + tall <= 256 + 1e-9 and 0 <= left <= left + wide <= 340 + 1e-9


def test_a_short_video_goes_on_at_its_beginning():
    meta = dataclasses.replace(META, num_frames=20)
    seen = pairs(meta, count=200)
    assert any(list(clip.frames) != sorted(clip.frames) for pair in seen for clip in pair)
    starts = np.array([[clip.frames[0] for clip in pair] for pair in seen])
    assert set(starts.flat) >= set(range(20))
    assert abs(np.corrcoef(starts.T)[0, 1]) < 0.25  # independent


def test_boxes_have_the_stated_areas_and_places():
    boxes = np.array([clip.box for pair in pairs(count=2000) for clip in pair])
    area = boxes[:, 2] * boxes[:, 3] / (256 * 340)
    assert area.min() >= 0.1 and area.max() <= 1.0 and 0.5 < area.mean() < 0.65
    free = 256 - boxes[:, 2] > 1
    place = boxes[free, 0] / (256 - boxes[free, 2])
    assert 0.47 < place.mean() < 0.53 and np.histogram(place, 4, (0, 1))[0].min() > 0.2 * free.sum()
    across = boxes[:, 1] / np.maximum(340 - boxes[:, 3], 1e-9)
    wide = 340 - boxes[:, 3] > 1
    assert abs(np.corrcoef(place[: wide.sum()], across[free][: len(place)][: wide.sum()])[0, 1]) < 0.1
    assert 0.46 < np.mean([clip.flip for pair in pairs(count=1000) for clip in pair]) < 0.54


def test_draws_depend_on_seed_epoch_and_video_alone():
    take = lambda **change: sample_clip_pair(  # noqa: E731
        META, RECIPE, AUGMENTATION, **{"seed": 5, "video_id": "a", **change}
    )
    assert take() == take()
    assert len({take(), take(seed=6), take(epoch=1), take(video_id="b")}) == 4


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"seed = -1"):
        sample_clip_pair(META, RECIPE, AUGMENTATION, seed=-1, video_id="a")
    with pytest.raises(InputError, match="power = 0"):
        sample_clip_pair(META, RECIPE, AUGMENTATION, seed=1, video_id="a", power=0.0)
    with pytest.raises(InputError, match="without frames"):
        sample_clip_pair(dataclasses.replace(META, num_frames=0), RECIPE, AUGMENTATION, seed=1, video_id="a")
    with pytest.raises(InputError, match=r"u = 1\.5"):
        draw_interval(1.5, longest=3.0)


@pytest.mark.parametrize("frames", [40, 9], ids=["long", "goes on at its beginning"])
def test_a_pair_is_decoded(frames, render, read_number, tmp_path):
    """Whole frames of a real file, so that each carries its number."""
    path = render(tmp_path / "clip.mp4", frames=frames, height=96, width=96)
    meta = probe(path)
    whole = AugmentationRecipe(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)
    recipe = train_recipe(num_frames=5, stride=3.0, size=96)
    for video in "abc":
        pair = sample_clip_pair(meta, recipe, whole, seed=2, video_id=video)
        clips = decode_clips(path, pair)
        assert clips.shape == (2, 5, 96, 96, 3)
        for clip, spec in zip(clips, pair, strict=True):
            assert tuple(read_number(picture) for picture in clip) == spec.frames
