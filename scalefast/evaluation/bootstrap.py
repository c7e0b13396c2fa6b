"""How sure a number is: bootstrap over test videos, and a paired test of two representations.

Everything is drawn by numpy's Philox keyed with a seed, so the same call gives the same interval.

Legend: `M` test videos, `B` resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scalefast.errors import InputError

__all__ = ["RESAMPLES", "bootstrap_interval", "bootstrap_means", "sign_flip_p_value"]

RESAMPLES = 10_000
"""Resamples of an interval; the Monte Carlo error of its ends is then about 2% of its width."""

AT_A_TIME = 2**22
"""Counts that are alive at a time (32 MiB)."""


def bootstrap_means(values: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Means of `resamples` samples of M videos each, drawn with replacement.

    Videos with equal values are drawn together, as one cell of a multinomial: the same distribution as
    `values[randint(M, [B, M])].mean(1)`, in B x (distinct values) numbers instead of B x M.

    Args:
        values: `[M]`, score of each video (for an accuracy: 1 if it was classified rightly, else 0).
        resamples: B.
        seed: of the draws.

    Returns:
        float64 `[B]`.

    Raises:
        InputError: no videos, values that are not finite, or no resamples.
    """
    cells, counts = np.unique(_scores(values), return_counts=True)
    if resamples < 1:
        raise InputError(f"a bootstrap needs at least 1 resample, got {resamples = }")
    random, total = np.random.Generator(np.random.Philox(key=seed)), int(counts.sum())
    rows = max(1, AT_A_TIME // len(cells))
    parts = [
        random.multinomial(total, counts / total, size=min(rows, resamples - start)) @ cells / total
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)


def bootstrap_interval(
    values: Tensor,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    strata: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Percentile interval of the mean of `[M]` values over the draw of the videos.

    Args:
        values: `[M]`, score of each video; for a difference that of one video under both representations.
        level: share of the resamples inside, in (0, 1).
        resamples: B.
        seed: of the draws.
        strata: sizes of consecutive parts of the videos (test sets of several splits), each drawn for itself; the
            interval is that of the mean of their means. None: one part.

    Returns:
        The lower and the upper end. One value says nothing of others: the ends are then -inf and inf.

    Raises:
        InputError: as `bootstrap_means`, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must lie between 0 and 1, got {level = }")
    parts = values.split(list(strata)) if strata is not None else (values,)
    if min(len(_scores(part)) for part in parts) < 2:
        return -math.inf, math.inf
    drawn = [
        bootstrap_means(part, resamples=resamples, seed=seed + (i << 64)) for i, part in enumerate(parts)
    ]
    means = np.mean(drawn, axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_p_value(gain: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of "which of the two representations a video favours is a coin's toss".

    The sum of the gains against its distribution when the sign of each gain is flipped at random. Where all
    gains that are not 0 have one size (right or wrong under both) this is McNemar's exact test, and computed
    exactly; else by `resamples` draws, with the observed sum counted among them.

    Args:
        gain: `[M]`, score of each video under one representation less that under the other.
        resamples: draws where it is not exact.
        seed: of the draws.

    Returns:
        In (0, 1].
    """
    gains = _scores(gain)
    gains = gains[gains != 0]
    if not len(gains):
        return 1.0
    sizes, counts = np.unique(np.abs(gains), return_counts=True)
    if len(sizes) == 1:
        return _binomial_p_value(int((gains > 0).sum()), len(gains))
    random = np.random.Generator(np.random.Philox(key=seed))
    sums = sum(
        size * (2 * random.binomial(count, 0.5, size=resamples) - count)
        for size, count in zip(sizes, counts, strict=True)
    )
    observed = abs(gains.sum())
    reached = int((np.abs(sums) >= observed - 1e-9 * sizes.max()).sum())
    return (1 + reached) / (1 + resamples)


def _binomial_p_value(heads: int, tosses: int) -> float:
    """Probability that a fair coin's heads are at least as far from half as these."""
    fewer = min(heads, tosses - heads)
    logs = [
        math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) - tosses * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _scores(values: Tensor) -> NDArray[np.float64]:
    if values.ndim != 1 or not len(values):
        raise InputError(f"values must be [videos] with at least one video, got {values.shape = }")
    scores: NDArray[np.float64] = values.detach().cpu().double().numpy()
    if not np.isfinite(scores).all():
        raise InputError("values must be finite, one number a video, but some are NaN or infinite")
    return scores
