"""Which videos keep their labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast.errors import InputError
from scalefast.evaluation import draw_shots
from scalefast.evaluation.low_shot import SHOTS

Labels = st.lists(st.integers(0, 5), min_size=1, max_size=80)


@given(labels=Labels, draw=st.integers(0, 5), seed=st.integers(0, 100))
def test_every_class_keeps_its_share(labels: list[int], draw: int, seed: int) -> None:
    y = torch.tensor(labels)
    masks = {name: draw_shots(y, shots, draw=draw, seed=seed) for name, shots in SHOTS.items()}
    for name, shots in SHOTS.items():
        assert torch.equal(masks[name], draw_shots(y, shots, draw=draw, seed=seed))
        for label in set(labels):
            count, kept = labels.count(label), int(masks[name][y == label].sum())
            if isinstance(shots, float):
                assert kept >= 1 and (kept == 1 or abs(kept - shots * count) <= 0.5)
            else:
                assert kept == min(shots, count)
    # Fewer shots are part of more.
    assert bool((masks["1pct"] <= masks["5pct"]).all() and (masks["5pct"] <= masks["25pct"]).all())
    assert bool((masks["1_per_class"] <= masks["5_per_class"]).all())


def test_draws_and_seeds_differ_and_the_whole_is_the_whole() -> None:
    y = torch.arange(200) % 4
    found = {tuple(draw_shots(y, 5, draw=d, seed=s).tolist()) for d in range(3) for s in range(2)}
    assert len(found) == 6
    assert draw_shots(y, 1.0, draw=0).all() and draw_shots(y, 50, draw=0).all()


@pytest.mark.parametrize(("shots", "draw"), [(0.0, 0), (1.5, 0), (0, 0), (-1, 0), (0.5, -1)])
def test_bad_shots_are_named(shots: float, draw: int) -> None:
    with pytest.raises(InputError, match="shots must be a share in"):
        draw_shots(torch.arange(4), shots, draw=draw)
