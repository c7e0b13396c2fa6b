"""SCALE and its losses on the Triton kernels: the same step as on the reference, draws included."""

from __future__ import annotations

import pytest
import torch

import scalefast
from scalefast.kernels import RandomState


@pytest.fixture
def step(device, monkeypatch):
    """A function that takes one training step on an implementation and returns losses and gradients."""
    torch.manual_seed(0)
    task = scalefast.SCALEPretraining(
        scalefast.SCALE(24, hidden_dim=64, dropout=0.2), projection_dim=16, head_dim=32, target_dim=32
    ).to(device)
    g = torch.Generator().manual_seed(1)
    features = torch.randn(5, 2, 3, 24, generator=g).to(device)
    positions = torch.rand(5, 2, 3, 7, generator=g).to(device)

    def take(implementation, *, lengths=None):
        monkeypatch.setenv("SCALEFAST_BACKEND", implementation)
        rng = RandomState(
            torch.tensor([3, 7], device=device), torch.tensor([11, 4, 90, 2, 1 << 33], device=device)
        )
        task.train().zero_grad()
        losses = task(features, positions, lengths=lengths, rng=rng)
        losses.loss.backward()
        return losses, [p.grad.clone() for p in task.parameters()]

    return take


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_a_step_is_the_references(step, device, ragged):
    lengths = torch.tensor([[3, 2], [1, 3], [3, 3], [2, 2], [3, 1]], device=device) if ragged else None
    want, want_grads = step("reference", lengths=lengths)
    got, got_grads = step("triton", lengths=lengths)
    for name in ("loss", "mcm_loss", "set_loss", "mcm_accuracy", "set_accuracy"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-5, atol=1e-6)
    for one, other in zip(got_grads, want_grads, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max() + 1e-8
    again, again_grads = step("triton", lengths=lengths)
    assert torch.equal(again.loss, got.loss)
    assert all(torch.equal(a, b) for a, b in zip(again_grads, got_grads, strict=True))
