"""Batches: a pure function of (seed, epoch, step), the same for any number of processes."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast.errors import InputError
from scalefast.training import sampler
from scalefast.training.sampler import BatchPlan

plans = st.builds(
    BatchPlan,
    num_videos=st.integers(2, 300),
    batch_size=st.integers(2, 120),
    epochs=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
)


@given(plan=plans, epoch=st.integers(0, 2**31))
def test_every_epoch_is_a_permutation(plan: BatchPlan, epoch: int) -> None:
    order = plan.order(epoch)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(plan.num_videos))
    assert torch.equal(order, plan.order(epoch))


@given(plan=plans, data=st.data())
@settings(max_examples=60)
def test_shares_in_rank_order_are_the_batch(plan: BatchPlan, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, plan.total_steps - 1))
    ranks = data.draw(st.integers(1, plan.batch))
    order = plan.order(step // plan.steps_per_epoch)
    parts = [order[plan.share(step, rank=rank, world_size=ranks)] for rank in range(ranks)]
    assert torch.equal(torch.cat(parts), order[plan.share(step)])
    assert sum(map(len, parts)) == plan.batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(plan=plans)
@settings(max_examples=60)
def test_an_epoch_sees_every_video_once_but_for_the_dropped(plan: BatchPlan) -> None:
    order = plan.order(0)
    seen = torch.cat([order[plan.share(step)] for step in range(plan.steps_per_epoch)])
    assert len(seen) == len(seen.unique()) == plan.num_videos - plan.dropped
    assert plan.dropped < plan.batch


def test_orders_differ_between_epochs_and_seeds() -> None:
    plan = BatchPlan(num_videos=50, batch_size=10, epochs=2, seed=0)
    other = BatchPlan(num_videos=50, batch_size=10, epochs=2, seed=2**40)
    assert not torch.equal(plan.order(0), plan.order(1))
    assert not torch.equal(plan.order(0), other.order(0))


def test_the_order_does_not_depend_on_how_many_rows_are_drawn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = BatchPlan(num_videos=301, batch_size=10, epochs=2, seed=9)
    whole = plan.order(1)
    monkeypatch.setattr(sampler, "_ROWS_AT_A_TIME", 50)
    assert torch.equal(plan.order(1), whole)


@given(plan=plans, data=st.data())
@settings(max_examples=40)
def test_batches_from_any_step_on_are_those_of_the_orders(plan: BatchPlan, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, plan.total_steps - 1))
    taken = list(itertools.islice(plan.batches(start), 4))
    assert [step for step, _ in taken] == list(range(start, min(start + 4, plan.total_steps)))
    for step, rows in taken:
        assert torch.equal(rows, plan.order(step // plan.steps_per_epoch)[plan.share(step)])


def test_every_place_is_equally_likely() -> None:
    """Where row 0 lands over 4,000 epochs of 8 videos: 500 +- 21 (one sigma) in each place."""
    plan = BatchPlan(num_videos=8, batch_size=4, epochs=1, seed=5)
    places = torch.stack([plan.order(epoch).argsort()[0] for epoch in range(4000)])
    assert (torch.bincount(places, minlength=8) - 500).abs().max() < 5 * 21


@pytest.mark.parametrize(
    ("videos", "batch_size", "batch", "steps", "dropped"),
    [
        (25, 11, 11, 2, 3),
        (25, 512, 25, 1, 0),
        (25, 25, 25, 1, 0),
        (25, 5, 5, 5, 0),
        (25, 24, 24, 1, 1),
        (2, 2, 2, 1, 0),
    ],
)
def test_sizes(videos: int, batch_size: int, batch: int, steps: int, dropped: int) -> None:
    plan = BatchPlan(num_videos=videos, batch_size=batch_size, epochs=3, seed=0)
    assert (plan.batch, plan.steps_per_epoch, plan.dropped) == (batch, steps, dropped)
    assert plan.total_steps == 3 * steps


def test_too_many_processes_and_too_few_videos_are_refused() -> None:
    plan = BatchPlan(num_videos=3, batch_size=8, epochs=1, seed=0)
    with pytest.raises(InputError, match="4 processes cannot share a batch of 3 videos"):
        plan.share(0, rank=0, world_size=4)
    with pytest.raises(InputError, match="needs at least 2, but the store holds 1"):
        BatchPlan(num_videos=1, batch_size=8, epochs=1, seed=0)
