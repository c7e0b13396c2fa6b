"""Views: disjoint, uniform, a function of (seed, step, row) alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast import kernels
from scalefast.kernels import RandomState


def bank(videos, clips, dim=3):
    features = torch.arange(videos * clips, dtype=torch.float32).view(videos, clips, 1).expand(-1, -1, dim)
    positions = features[..., :1].expand(-1, -1, 7) + 0.5
    return features.contiguous(), positions.contiguous()


@settings(max_examples=40, deadline=None)
@given(
    videos=st.integers(1, 9),
    clips=st.integers(2, 20),
    data=st.data(),
    seed=st.integers(0, 2**62),
    step=st.integers(0, 10**6),
)
def test_two_disjoint_sets_of_the_right_video(videos, clips, data, seed, step):
    views = data.draw(st.integers(1, clips // 2))
    rows = torch.tensor(data.draw(st.lists(st.integers(0, videos - 1), min_size=1, max_size=6, unique=True)))
    features, positions = bank(videos, clips)
    rng = RandomState.create(seed, step=step, rows=rows)
    x, p = kernels.sample_views(features, positions, rows, views=views, rng=rng)
    assert x.shape == (len(rows), 2, views, 3) and p.shape == (len(rows), 2, views, 7)
    assert torch.equal(x[..., 0] + 0.5, p[..., 0])
    for row, drawn in zip(rows.tolist(), x[..., 0].flatten(1).tolist(), strict=True):
        assert len(set(drawn)) == 2 * views
        assert all(row * clips <= c < (row + 1) * clips for c in drawn)
    alone, _ = kernels.sample_views(features, positions, rows[-1:], views=views, rng=rng)
    assert torch.equal(alone[0], x[-1])


def test_every_clip_is_drawn_equally_often():
    rng = RandomState.create(11, rows=torch.arange(20_000))
    chosen = kernels.draw_views(rng, clips=16, views=4)
    share = torch.nn.functional.one_hot(chosen, 16).double().sum((0, 2)) / (20_000 * 4)  # [2, 16]
    assert (share - 1 / 16).abs().max() < 5 * (1 / 16 * 15 / 16 / 80_000) ** 0.5


def test_steps_differ_and_dtypes_are_kept():
    features, positions = bank(4, 16)
    rows = torch.arange(4)
    one, _ = kernels.sample_views(
        features.half(), positions, rows, views=8, rng=RandomState.create(0, step=1, rows=rows)
    )
    two, _ = kernels.sample_views(
        features.half(), positions, rows, views=8, rng=RandomState.create(0, step=2, rows=rows)
    )
    assert one.dtype == torch.float16 and not torch.equal(one, two)


def test_bad_input_is_named():
    features, positions = bank(4, 6)
    rows = torch.arange(4)
    rng = RandomState.create(0, rows=rows)
    with pytest.raises(
        ValueError, match="two disjoint sets of views = 4 clips need 8 clips a video; the bank has 6"
    ):
        kernels.sample_views(features, positions, rows, views=4, rng=rng)
    with pytest.raises(ValueError, match=r"rows must be in \[0, 4\); got 1 to 4"):
        kernels.sample_views(features, positions, rows + 1, views=2, rng=rng)
    with pytest.raises(ValueError, match=r"bank must be floating \[N, C, D\]"):
        kernels.sample_views(features[0], positions, rows, views=2, rng=rng)
    with pytest.raises(ValueError, match="positions must be"):
        kernels.sample_views(features, positions[:, :2], rows, views=2, rng=rng)
    with pytest.raises(ValueError, match=r"rows must be int64 \[B\]"):
        kernels.sample_views(features, positions, rows.float(), views=2, rng=rng)
