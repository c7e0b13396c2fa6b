"""The gather of masked tokens in Triton, against the reference."""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels.ops.set_embedding import reference

CUDA = torch.cuda.is_available()
DTYPES = [
    torch.float32,
    torch.float16,
    *([torch.bfloat16] if CUDA else []),
]  # the interpreter's bf16 is wrong
GATHERS = [
    ((37, 8, 32), "some", 160),
    ((37, 8, 32), "some", 300),  # more rows than tokens
    ((7, 5, 13), "some", 20),
    ((7, 5, 13), "none", 5),
    ((7, 5, 13), "all", 35),
    ((2, 3, 1030), "some", 6),
    ((300, 7, 3), "some", 900),  # several chunks of 1024 tokens
    ((1, 1, 1), "all", 1),
    ((0, 4, 8), "some", 3),
    ((2, 0, 8), "some", 3),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "mask", "capacity"), GATHERS, ids=str)
def test_gather_is_the_references(shape, mask, capacity, dtype, device, cases):
    floats, chosen = cases.make(shape, mask, dtype, device)
    leaf, plain = (floats[0].detach().requires_grad_() for _ in range(2))
    rows, index, count = kernels.gather_masked(leaf, chosen, capacity=capacity)
    wanted = reference.gather_masked(plain, chosen, capacity=capacity)
    assert (rows.dtype, index.dtype, count.dtype) == (dtype, torch.int64, torch.int32)
    for got, want in zip((rows, index, count), wanted, strict=True):
        assert torch.equal(got, want)
    weight = torch.randn_like(rows)
    rows.backward(weight)
    if wanted[0].requires_grad:
        wanted[0].backward(weight)
    assert torch.equal(leaf.grad, plain.grad if plain.grad is not None else torch.zeros_like(leaf))


def test_gather_reads_views_where_they_lie(device):
    tokens = torch.randn(5, 4, 16, device=device)
    mask = torch.rand(4, 5, device=device).t() < 0.5
    wanted = reference.gather_masked(tokens[:, 1:], mask[:, 1:], capacity=15)
    for got, want in zip(kernels.gather_masked(tokens[:, 1:], mask[:, 1:], capacity=15), wanted, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("capacity", [1, 9, 64])
def test_surplus_is_counted_and_left_out(capacity, device):
    """What the reference does on a GPU, where an overflow is found in the count."""
    from scalefast.kernels.ops.set_embedding import triton as fused

    tokens = torch.randn(20, 7, 8, device=device, requires_grad=True)
    mask = torch.ones(20, 7, dtype=torch.bool, device=device)
    wanted = reference.gather_masked(tokens, mask, capacity=capacity)
    got = fused.gather_masked(tokens, mask, capacity=capacity)
    assert int(got[2]) == 140
    for have, want in zip(got, wanted, strict=True):
        assert torch.equal(have, want)
    (gradient,) = torch.autograd.grad(got[0].sum(), tokens)
    assert gradient.flatten(0, 1).sum(1).tolist() == [8.0] * capacity + [0.0] * (140 - capacity)


def test_overflow_is_refused_where_it_can_be_seen(device, monkeypatch):
    monkeypatch.setenv("SCALEFAST_CHECKS", "1")
    with pytest.raises(ValueError, match=r"6 tokens are masked, more than capacity = 5"):
        kernels.gather_masked(
            torch.zeros(2, 3, 4, device=device), torch.ones(2, 3, device=device).bool(), capacity=5
        )


# Registration
