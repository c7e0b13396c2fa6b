"""Gradients in chunks are those of one pass, whatever the encoder does inside."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scalefast.backbones.gradient_cache import backward_in_chunks, statistics_kept
from scalefast.cvrl import CVRLTask
from scalefast.errors import InputError


@dataclass
class Judged:
    loss: Tensor


def gradients(module: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return found


def assert_close(got: list[Tensor], want: list[Tensor], share: float) -> None:
    assert len(got) == len(want) > 0
    for one, other in zip(got, want, strict=True):
        assert (one - other).abs().max() <= share * other.abs().max()


def contrast(z: Tensor) -> Judged:
    return Judged(CVRLTask(nn.Identity(), feature_dim=z.shape[1]).losses(z).loss)


@settings(max_examples=25)
@given(videos=st.integers(2, 9), chunk=st.integers(1, 20), seed=st.integers(0, 99))
def test_chunks_of_any_size_give_the_gradients_of_one_pass(videos, chunk, seed):
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(7, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 6)).double()
    clips = torch.randn(2 * videos, 7, dtype=torch.float64)
    whole = backward_in_chunks(encoder, clips, contrast)
    want = gradients(encoder)
    parts = backward_in_chunks(encoder, clips, contrast, chunk=chunk)
    assert_close(gradients(encoder), want, 1e-9)
    torch.testing.assert_close(parts.loss, whole.loss)


def test_dropout_draws_the_same_in_both_passes():
    encoder = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 4)).train()
    clips = torch.randn(10, 6)
    torch.manual_seed(3)
    features = torch.cat([encoder(part) for part in clips.split(4)])  # the draws of the first pass
    judged = contrast(features)
    judged.loss.backward()
    want, after = gradients(encoder), torch.rand(1)
    torch.manual_seed(3)
    got = backward_in_chunks(encoder, clips, contrast, chunk=4)
    assert torch.equal(torch.rand(1), after)  # the generator stands where one pass leaves it
    assert_close(gradients(encoder), want, 1e-5)
    torch.testing.assert_close(got.loss, judged.loss)


def test_batch_normalisation_sees_each_chunk_once():
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)).train()

    one, other, clips = network(), network(), torch.randn(12, 6)
    contrast(torch.cat([one(part) for part in clips.split(4)])).loss.backward()
    backward_in_chunks(other, clips, contrast, chunk=4, encoder=other)
    assert_close(gradients(other), gradients(one), 1e-5)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert one[1].num_batches_tracked == 3


def test_weights_cast_by_autocast_keep_their_gradient():
    encoder = nn.Linear(6, 4)

    def encode(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encoder(x).float()

    clips = torch.randn(8, 6)
    backward_in_chunks(encode, clips, contrast)
    want = gradients(encoder)
    with torch.autocast(
        "cpu", enabled=True, dtype=torch.bfloat16
    ):  # whose cache would outlive the first pass
        backward_in_chunks(encode, clips, contrast, chunk=3)
    assert_close(gradients(encoder), want, 2e-2)


def test_activations_of_one_chunk_alone_are_kept():
    kept: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    encoder = nn.Sequential(nn.Linear(8, 400), nn.Tanh(), nn.Linear(400, 4))
    most = []
    for chunk in (None, 4):
        kept.clear()

        def encode(x: Tensor) -> Tensor:
            before = len(kept)
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                out = encoder(x)
            most.append(sum(kept[before:]))
            return out

        backward_in_chunks(encode, torch.randn(64, 8), contrast, chunk=chunk)
    weights = sum(p.numel() for p in encoder.parameters())
    assert most[0] > 64 * 400 and max(most[1:]) <= 2 * 4 * 400 + 4 * 8 + weights


def test_statistics_are_kept_and_tracked_again():
    norm = nn.BatchNorm1d(3).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with statistics_kept(norm):
        by_batch = norm(torch.randn(5, 3) + 4)
    assert by_batch.mean().abs() < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm(torch.randn(5, 3))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize(("count", "chunk"), [(0, 2), (3, 0)])
def test_nothing_to_do_is_refused(count, chunk):
    with pytest.raises(InputError, match="chunk of at least 1"):
        backward_in_chunks(nn.Identity(), torch.zeros(count, 2), contrast, chunk=chunk)
