"""CVRL's loss: the released form, itself left out, any number of ranks, and that it teaches."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scalefast.backbones import R3D, R3DConfig
from scalefast.backbones.gradient_cache import backward_in_chunks
from scalefast.cvrl import CVRLTask
from scalefast.errors import InputError

PROGRAM = Path(__file__).parent / "programs" / "ranks.py"


def task(**options):
    return CVRLTask(nn.Identity(), feature_dim=8, **options)


def released(projections, temperature):
    """Two cross-entropies over [other view, own view without itself], as the released code writes them."""
    first, second = F.normalize(projections, dim=1).chunk(2)
    own = torch.eye(len(first), dtype=torch.bool)
    labels = torch.arange(len(first))

    def half(a, b):
        across, within = a @ b.T / temperature, (a @ a.T / temperature).masked_fill(own, -1e9)
        return F.cross_entropy(torch.cat([across, within], 1), labels)

    return half(first, second) + half(second, first)


@pytest.mark.parametrize("videos", [2, 5, 17])
def test_loss_and_gradient_are_the_released_ones(videos):
    g = torch.Generator().manual_seed(videos)
    z = torch.randn(2 * videos, 6, generator=g, dtype=torch.float64, requires_grad=True)
    want = released(z, 0.1)
    got = task().losses(z)
    torch.testing.assert_close(got.loss, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(got.loss, z)[0], torch.autograd.grad(want, z)[0], rtol=1e-9, atol=1e-12
    )
    near = F.normalize(z.detach(), dim=1)
    similar = (near @ near.T).fill_diagonal_(-2.0)
    partner = torch.arange(2 * videos).roll(videos)
    assert got.accuracy == (similar.argmax(1) == partner).double().mean()


def test_perfect_and_hopeless_projections():
    eye = torch.eye(6)
    assert task().losses(torch.cat([eye, eye])).accuracy == 1.0
    crossed = torch.cat([eye, eye.roll(1, 0)])
    assert task().losses(crossed).accuracy == 0.0


def test_two_processes_give_what_one_gives(tmp_path):
    """Unequal shares of a batch of five videos."""
    workers = [
        subprocess.Popen([sys.executable, str(PROGRAM), str(rank), str(tmp_path)], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for worker in workers:
        _, told = worker.communicate(timeout=120)
        assert worker.returncode == 0, told.decode()
    loss, accuracy, grads = runpy.run_path(str(PROGRAM))["step"](slice(0, 5))
    for rank in (0, 1):
        its_loss, its_accuracy, its_grads = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(its_loss, loss, rtol=1e-5, atol=1e-6)
        assert its_accuracy == accuracy
        for one, other in zip(its_grads, grads, strict=True):
            assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_an_r3d_learns_which_clips_belong_together():
    """Noisy clips of eight still pictures; the encoder is the library's own."""
    torch.manual_seed(0)
    config = R3DConfig(depth="tiny", width=0.25, size=16, num_frames=4)
    trained = CVRLTask(R3D(config), hidden_dim=32, hidden_layers=1, projection_dim=16).train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
    pictures = torch.randn(8, 3, 1, 16, 16)
    history = []
    for _ in range(25):
        pair = [pictures + torch.randn(8, 3, 4, 16, 16) for _ in range(2)]
        losses = trained(*pair)
        optimizer.zero_grad()
        losses.loss.backward()
        optimizer.step()
        history.append((losses.loss.item(), losses.accuracy.item()))
    assert sum(a for _, a in history[-5:]) / 5 > 0.9 > history[0][1]
    assert history[-1][0] < 0.5 * history[0][0]


def test_4096_clips_in_chunks_have_the_gradients_of_one_pass():
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(4096, 3 * 2 * 4 * 4, generator=generator)
    found = []
    for chunk in (None, 64):
        torch.manual_seed(1)
        trained = CVRLTask(
            nn.Sequential(nn.Linear(96, 16), nn.GELU(), nn.Linear(16, 12)), feature_dim=12, hidden_layers=0
        )
        backward_in_chunks(trained.encoder, clips, lambda z, t=trained: t.losses(t.head(z)), chunk=chunk)
        found.append([p.grad for p in trained.parameters()])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_the_heads_layers():
    kinds = [type(layer).__name__ for layer in task(hidden_layers=2, hidden_dim=5, projection_dim=3).head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    published = CVRLTask(nn.Identity(), feature_dim=2048).head
    assert sum(p.numel() for p in published.parameters()) == 3 * (2048 * 2048 + 3 * 2048) + 2048 * 128 + 128


def test_bad_input_is_named():
    with pytest.raises(InputError, match="no integer feature_dim"):
        CVRLTask(nn.Identity())
    with pytest.raises(InputError, match=r"temperature = 0"):
        task(temperature=0.0)
    with pytest.raises(InputError, match=r"\(2, 3, 4, 8, 8\), \(2, 3, 4, 8, 9\)"):
        task()(torch.zeros(2, 3, 4, 8, 8), torch.zeros(2, 3, 4, 8, 9))
    with pytest.raises(InputError, match="at least 2 videos; got 2 clips"):
        task().losses(torch.ones(2, 8))
