"""The course of a video over time as cosines: whatever clips are drawn, whatever form times have."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast import SCALE, FeatureStore
from scalefast.calibration import calibrate, with_parts
from scalefast.parts import DEFAULT_PARTS, PARTS, WHEN_PARTS, check_parts
from scalefast.time_moments import (
    RIDGE,
    apply_fit,
    fit_weights,
    relative_times,
    self_similarity,
    time_moments,
)


def places(begin: torch.Tensor, *, length: float = 0.2) -> torch.Tensor:
    """[N, V] -> positions [N, V, 7] of clips of one length."""
    positions = torch.rand(*begin.shape, 7)
    positions[..., 5], positions[..., 6] = begin, begin + length
    return positions


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 10**6), st.floats(0.01, 1000))
def test_order_of_clips_form_of_times_and_padding_do_not_matter(clips, count, seed, scale):
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(3, clips, 5, generator=random, dtype=torch.float64)
    positions = places(torch.rand(3, clips, generator=random)).double()
    expected = time_moments(values, positions, count=count)
    assert expected.shape == (3, count, 5) and expected.dtype == torch.float64
    order = torch.randperm(clips, generator=random)
    close = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(
        time_moments(values[:, order], positions[:, order], count=count), expected, **close
    )
    seconds = positions.clone()
    seconds[..., 5:] = 7 + scale * seconds[..., 5:]
    torch.testing.assert_close(time_moments(values, seconds, count=count), expected, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(time_moments(3 + 2 * values, positions, count=count), 2 * expected, **close)
    padded = torch.cat([values, torch.full((3, 2, 5), math.nan)], dim=1)
    wide = torch.cat([positions, places(torch.full((3, 2), 99.0)).double()], dim=1)
    present = torch.arange(clips + 2) < torch.full((3, 1), clips)
    torch.testing.assert_close(time_moments(padded, wide, count=count, present=present), expected, **close)


def test_random_and_even_clips_tell_the_same_course():
    """What a mean of products would not do: features that follow the waves come out whatever clips were drawn."""
    random = torch.Generator().manual_seed(3)
    wanted = torch.randn(40, 3, 6, generator=random)

    def seen(begin: torch.Tensor) -> torch.Tensor:
        positions = places(begin)
        waves = torch.cos(math.pi * relative_times(positions)[..., None] * torch.arange(1, 4))
        return time_moments(5 + waves @ wanted, positions, count=3).flatten(1)

    drawn, even = seen(torch.rand(40, 16, generator=random)), seen(torch.linspace(0, 1, 15).expand(40, 15))
    assert float(torch.nn.functional.cosine_similarity(drawn, wanted.flatten(1)).min()) > 0.9
    assert float(torch.nn.functional.cosine_similarity(drawn, even).mean()) > 0.98


def test_one_clip_and_clips_at_one_time_have_no_course():
    values = torch.randn(2, 4, 3)
    assert not bool(time_moments(values[:, :1], places(torch.rand(2, 1)), count=3).any())
    at_once = places(torch.full((2, 4), 0.3))
    torch.testing.assert_close(
        time_moments(values, at_once, count=3), torch.zeros(2, 3, 3), atol=1e-6, rtol=0
    )
    assert bool((relative_times(places(torch.zeros(2, 4), length=0.0)) == 0).all())


def test_gradients_flow():
    values = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    positions = places(torch.rand(2, 5)).double()
    assert torch.autograd.gradcheck(lambda x: time_moments(x, positions, count=2), values)
    assert RIDGE > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 10**6))
def test_self_similarity_is_that_of_the_fits(clips, count, seed):
    """Against a loop over pairs of moments; a rotation, a scale and a shift of the features change nothing."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(3, clips, 6, generator=random, dtype=torch.float64)
    positions = places(torch.rand(3, clips, generator=random)).double()
    found = self_similarity(values, positions, count=count)
    moments = time_moments(values, positions, count=count)
    for video, own in zip(found, moments, strict=True):
        trace = sum(float(row @ row) for row in own)
        pairs = [float(own[i] @ own[j]) / trace for i in range(count) for j in range(i, count)]
        torch.testing.assert_close(video, torch.tensor(pairs, dtype=torch.float64))
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=random, dtype=torch.float64))
    turned = self_similarity(5 - 3 * values @ turn, positions, count=count)
    torch.testing.assert_close(turned, found, atol=1e-9, rtol=1e-9)
    wide = torch.cat([values, torch.full((3, 2, 6), torch.nan)], 1)
    there = torch.arange(clips + 2) < torch.full((3, 1), clips)
    longer = torch.cat([positions, torch.full((3, 2, 7), torch.nan)], 1)
    padded = self_similarity(wide, longer, count=count, present=there)
    torch.testing.assert_close(padded, found, atol=1e-9, rtol=1e-9)


def test_self_similarity_says_when_and_not_what():
    """Something goes on in two of the quarters: videos of other contents are alike, those of other quarters are not."""
    middles = torch.linspace(0.02, 0.98, 24)
    quarters = (middles * 4).long()

    def video(active, seed):
        what = torch.randn(16, generator=torch.Generator().manual_seed(seed))
        return torch.isin(quarters, torch.tensor(active)).float()[:, None] * what

    values = torch.stack([video((0, 1), 1), video((0, 1), 2), video((0, 2), 3), video((1, 2), 4)])
    positions = places((middles - 0.01).expand(4, -1), length=0.02)
    found = self_similarity(values, positions, count=5)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    apart = torch.cdist(found, found)
    assert float(apart[1, 2:].min()) > 0.1 and float(apart[2, 3]) > 0.1
    for still in (torch.zeros(1, 24, 16), 7 * torch.randn(1, 1, 16).expand(1, 24, 16)):
        assert float(self_similarity(still, positions[:1], count=5).abs().max()) < 1e-2
    hardly = self_similarity(1 + 1e-3 * values[:1], positions[:1], count=5)
    torch.testing.assert_close(hardly, found[:1], atol=1e-2, rtol=1e-2)


def test_when_weighs_as_much_as_what(tmp_path):
    torch.manual_seed(0)
    model = SCALE(8, hidden_dim=32, num_layers=1, center_sets=True, calibrated=True, parts=PARTS).eval()
    course = torch.randn(200, 1, 8) * torch.linspace(-1, 1, 8).repeat_interleave(2)[None, :, None]
    calibrate(model, FeatureStore.create(tmp_path / "s", features=course))
    weights = dict(zip(model.parts, model.part_weights.tolist(), strict=True))
    what = math.sqrt(sum(weight**2 for part, weight in weights.items() if part not in WHEN_PARTS))
    when = math.hypot(*(weights[part] for part in WHEN_PARTS))
    assert (
        weights["mean"] == 1.0
        and what > 1.5
        and weights["self_similarity"] > 0
        and when == pytest.approx(what)
    )
    alone = with_parts(model, parts=[part for part in PARTS if part != "self_similarity"])
    calibrate(alone, tmp_path / "s")
    assert float(alone.part_weights[alone.parts.index("time")]) == pytest.approx(what)


def test_parts_are_kept_with_a_model_and_models_of_before_have_the_first_four(tmp_path):
    parts = ("mean", "cls", "time")
    model = SCALE(6, hidden_dim=32, calibrated=True, parts=parts)
    model.save_pretrained(tmp_path / "new")
    assert SCALE.from_pretrained(tmp_path / "new").parts == parts
    old = SCALE(6, hidden_dim=32, calibrated=True)
    old.save_pretrained(tmp_path / "old")
    config = tmp_path / "old" / "config.json"
    text = config.read_text()
    assert '"parts"' in text
    start = text.index(',\n  "parts"')
    config.write_text(text[:start] + text[text.index("]", start) + 1 :])
    found = SCALE.from_pretrained(tmp_path / "old")
    assert found.parts == DEFAULT_PARTS and len(found.part_means) == 6 + 3 * 32


@pytest.mark.parametrize("parts", [(), ("cls",), ("mean", "mean"), ("mean", "when"), "mean", None])
def test_other_parts_are_refused(parts):
    with pytest.raises(ValueError, match="parts must be 'mean' and others of mean, std"):
        check_parts(parts)


def test_autocast_changes_nothing():
    values, positions = torch.randn(3, 9, 6), places(torch.rand(3, 9))
    plain = [time_moments(values, positions, count=3), self_similarity(values, positions, count=5)]
    plain.append(apply_fit(fit_weights(positions, count=3), values))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [time_moments(values, positions, count=3), self_similarity(values, positions, count=5)]
        found.append(apply_fit(fit_weights(positions, count=3), values))
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
