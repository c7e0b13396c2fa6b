"""Gradients are sent bucket by bucket while others are computed; real processes are in test_distributed.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scalefast.training import gradients
from scalefast.training.gradients import GradientAverage, average_gradients


@pytest.fixture
def sent(monkeypatch):
    """Sizes of the buckets sent so far; every other process has the same gradients, so that a sum is twice its part."""
    sizes = []

    def all_reduce(flat, async_op):
        assert async_op
        sizes.append(flat.numel())
        return SimpleNamespace(wait=lambda: flat.mul_(2))

    monkeypatch.setattr(gradients.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(gradients, "BUCKET_BYTES", 4 * 12)
    return sizes


def parameters():
    return [nn.Parameter(torch.randn(size)) for size in (5, 7, 20, 3)]


def loss(chosen):
    return sum((parameter**2).sum() for parameter in chosen)


def test_a_bucket_goes_as_soon_as_it_and_those_before_it_are_full(sent):
    first, second, large, last = given = parameters()
    average = GradientAverage(given, processes=2)
    loss([large]).backward()
    assert sent == []  # the bucket before it is not full
    loss([first]).backward()
    assert sent == []
    loss([second]).backward()
    assert sent == [12, 20]
    loss([last]).backward()
    assert sent == [12, 20, 3]
    average.finish()
    assert sent == [12, 20, 3]
    for parameter in given:
        torch.testing.assert_close(parameter.grad, 2 * parameter.detach())


def test_what_a_backward_pass_does_not_reach_counts_as_zero(sent):
    given = parameters()
    average = GradientAverage(given, processes=2)
    for _ in range(2):  # a second step starts anew
        for parameter in given:
            parameter.grad = None
        loss(given[:1]).backward()
        average.finish()
        torch.testing.assert_close(given[0].grad, 2 * given[0].detach())
        assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in given[1:])
    assert sent == [12, 20, 3] * 2


def test_a_backward_pass_that_was_broken_off_leaves_no_trace(sent):
    given = parameters()
    average = GradientAverage(given, processes=2)
    loss(given[:3]).backward()
    for parameter in given:
        parameter.grad = None
    average.forget()
    sent.clear()
    loss(given).backward()
    average.finish()
    assert sent == [12, 20, 3]
    for parameter in given:
        torch.testing.assert_close(parameter.grad, 2 * parameter.detach())


def test_at_once_it_is_the_same(sent):
    given = parameters()
    loss(given).backward()
    average_gradients(given, processes=2)
    assert sent == [12, 20, 3]
    for parameter in given:
        torch.testing.assert_close(parameter.grad, 2 * parameter.detach())


def test_one_process_sends_nothing(sent):
    given = parameters()
    average = GradientAverage(given, processes=1)
    loss(given).backward()
    average.finish()
    average_gradients(given, processes=1)
    assert sent == []
    torch.testing.assert_close(given[0].grad, 2 * given[0].detach())
