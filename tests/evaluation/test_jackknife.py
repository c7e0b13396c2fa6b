"""Standard errors of NMI and ARI: against leaving out every video, the plain formula, and simulated draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scalefast.errors import InputError
from scalefast.evaluation import Results, adjusted_rand_index, evaluate, normalized_mutual_information
from scalefast.evaluation.clustering import contingency
from scalefast.evaluation.jackknife import (
    influences,
    jackknife_error,
    jackknife_interval,
    normal_p_value,
)

MEASURES = {
    "nmi": (normalized_mutual_information, normalized_mutual_info_score),
    "ari": (adjusted_rand_index, adjusted_rand_score),
}
both = pytest.mark.parametrize("measure", list(MEASURES))


@both
@settings(max_examples=25)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=25))
def test_influences_are_those_of_leaving_out_each_video(measure: str, pairs: list[tuple[int, int]]) -> None:
    ours, theirs = MEASURES[measure]
    truth, found = torch.tensor(pairs).T
    each = []
    for i in range(len(pairs)):
        kept = torch.arange(len(pairs)) != i
        each.append(theirs(truth[kept].numpy(), found[kept].numpy()))
    expected = (len(each) - 1) * (np.mean(each) - np.array(each))
    influence = influences(ours, truth, found)
    np.testing.assert_allclose(influence.numpy(), expected, atol=1e-6)
    assert influence.sum().item() == pytest.approx(0, abs=1e-6)


def test_of_a_mean_it_is_the_standard_error() -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0)).double()
    parts = values.split([20, 30])
    centred = torch.cat([part - part.mean() for part in parts])
    each = [part.var().item() / len(part) for part in parts]
    assert jackknife_error(values - values.mean()) == pytest.approx((values.var().item() / 50) ** 0.5)
    assert jackknife_error(centred, strata=(20, 30)) == pytest.approx(math.sqrt(sum(each)) / 2)


@both
@pytest.mark.parametrize(("videos", "agreement"), [(120, 0.3), (120, 0.7), (400, 0.5)])
def test_intervals_cover_and_hold_their_number(measure: str, videos: int, agreement: float) -> None:
    """Twelve classes, clusters right for a share of the videos: of 300 draws of the test set about 95% of the intervals
    hold the mean over draws; a percentile bootstrap's would lie above it."""
    of, _ = MEASURES[measure]
    random = torch.Generator().manual_seed(1)
    values, errors = [], []
    for _ in range(300):
        truth = torch.randint(12, (videos,), generator=random)
        right = torch.rand(videos, generator=random) < agreement
        found = torch.where(right, truth, torch.randint(12, (videos,), generator=random))
        values.append(of(contingency(truth, found)))
        errors.append(jackknife_error(influences(of, truth, found)))
    ends = [
        jackknife_interval(value, error, least=-1.0, most=1.0)
        for value, error in zip(values, errors, strict=True)
    ]
    assert all(low <= value <= high for value, (low, high) in zip(values, ends, strict=True))
    covered = np.mean([low <= np.mean(values) <= high for low, high in ends])
    assert 0.9 <= covered <= 1.0
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


def test_differences_of_no_difference_are_seldom_significant() -> None:
    random = torch.Generator().manual_seed(2)
    found = []
    for _ in range(200):
        truth = torch.randint(6, (150,), generator=random)
        parts = [
            torch.where(
                torch.rand(150, generator=random) < 0.5, truth, torch.randint(6, (150,), generator=random)
            )
            for _ in range(2)
        ]
        one, other = (normalized_mutual_information(contingency(truth, part)) for part in parts)
        gain = [influences(normalized_mutual_information, truth, part) for part in parts]
        found.append(normal_p_value(one - other, jackknife_error(gain[0] - gain[1])))
    assert np.mean(np.array(found) < 0.05) <= 0.1
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_ends() -> None:
    assert jackknife_interval(0.9, 0.2, least=0.0, most=1.0) == pytest.approx((0.508, 1.0), abs=1e-3)
    assert jackknife_interval(0.5, math.inf, least=0.0, most=1.0) == (-math.inf, math.inf)
    assert jackknife_error(torch.zeros(1)) == math.inf
    assert normal_p_value(0.3, 0.1) == pytest.approx(2 * norm.sf(3))
    assert normal_p_value(0.3, 0.0) == normal_p_value(0.0, 0.1) == normal_p_value(0.3, math.inf) == 1.0
    with pytest.raises(InputError, match="at least one video"):
        jackknife_error(torch.zeros(0))


def test_rows_of_a_clustering_hold_their_numbers(run, stores) -> None:  # type: ignore[no-untyped-def]
    found: Results = evaluate(
        run, train=stores[0], test=stores[1], protocols=("clustering",), seed=2, device="cpu"
    )
    for row in ("clustering_nmi", "clustering_ari"):
        for name, value in found.accuracies[row].items():
            low, high = found.intervals[row][name]
            assert low <= value <= high and (low < high or value in (0.0, 1.0))
        difference = found.differences[row]
        assert difference.low <= difference.value <= difference.high
