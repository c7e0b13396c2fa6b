"""Bootstrap and sign-flip test against plain resampling and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from scalefast.errors import InputError
from scalefast.evaluation import bootstrap_interval, sign_flip_p_value
from scalefast.evaluation.bootstrap import bootstrap_means

Values = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=30)


@pytest.mark.parametrize("distinct", [2, 6, 97])
def test_means_are_distributed_as_those_of_plain_resampling(distinct: int) -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, distinct, 97) / distinct
    plain = values[random.integers(0, 97, (20_000, 97))].mean(1)
    ours = bootstrap_means(torch.from_numpy(values), resamples=20_000)
    assert ours.shape == (20_000,)
    for share in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert np.quantile(ours, share) == pytest.approx(np.quantile(plain, share), abs=0.004)


def test_interval_of_an_accuracy_is_near_the_normal_one() -> None:
    right = torch.arange(2000) % 10 < 7
    low, high = bootstrap_interval(right)
    half = norm.ppf(0.975) * math.sqrt(0.7 * 0.3 / 2000)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.001)


def test_many_videos_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("scalefast.evaluation.bootstrap.AT_A_TIME", 120)
    means = bootstrap_means(values, resamples=1001)
    assert means.shape == (1001,)
    assert means.mean() == pytest.approx(values.mean().item(), abs=0.01)


@given(values=Values, seed=st.integers(0, 99))
def test_interval_lies_among_the_values_and_repeats(values: list[float], seed: int) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    low, high = bootstrap_interval(scores, resamples=200, seed=seed)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert bootstrap_interval(scores.flip(0), resamples=200, seed=seed) == (low, high)
    mirrored = bootstrap_interval(scores, level=0.5, resamples=200, seed=seed)
    assert low <= mirrored[0] <= mirrored[1] <= high


@given(better=st.integers(0, 60), worse=st.integers(0, 60), equal=st.integers(0, 5))
def test_right_or_wrong_is_mcnemars_exact_test(better: int, worse: int, equal: int) -> None:
    gain = torch.tensor([1.0] * better + [-1.0] * worse + [0.0] * (equal + 1))
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_flip_p_value(gain) == pytest.approx(expected, rel=1e-9)
    assert sign_flip_p_value(-gain) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_other_gains_against_all_flips(seed: int) -> None:
    gain = torch.randint(-3, 6, (12,), generator=torch.Generator().manual_seed(seed)).double() / 5
    flips = np.array(list(itertools.product((-1, 1), repeat=12))) @ np.abs(gain.numpy())
    exact = (np.abs(flips) >= abs(gain.sum().item()) - 1e-12).mean()
    assert sign_flip_p_value(gain, resamples=40_000) == pytest.approx(exact, abs=0.012)


def test_p_values_of_no_difference_are_uniform() -> None:
    random = torch.Generator().manual_seed(0)
    found = [sign_flip_p_value(torch.randn(40, generator=random), resamples=400, seed=i) for i in range(300)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_one_video_says_nothing() -> None:
    assert bootstrap_interval(torch.ones(1)) == (-math.inf, math.inf)
    assert sign_flip_p_value(torch.ones(1)) == 1.0


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (torch.zeros(0), {}, "at least one video"),
        (torch.zeros(2, 2), {}, r"values must be \[videos\]"),
        (torch.tensor([0.0, math.nan]), {}, "values must be finite"),
        (torch.zeros(3), {"level": 1.0}, "between 0 and 1, got level = 1.0"),
        (torch.zeros(3), {"resamples": 0}, "at least 1 resample"),
    ],
)
def test_bad_input_is_named(values: torch.Tensor, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bootstrap_interval(values, **options)
