"""Set embedding in Triton, against the reference."""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.kernels.ops.dispatch import serves_triton
from scalefast.kernels.ops.set_embedding import embed_drawn_sets, reference

CUDA = torch.cuda.is_available()
DTYPES = [
    torch.float32,
    torch.float16,
    *([torch.bfloat16] if CUDA else []),
]  # the interpreter's bf16 is wrong
# One token; more rows than a tile; primes; a width of several tiles; no sets; no clips.
SHAPES = [(1, 1, 1), (37, 8, 32), (7, 5, 13), (2, 3, 1030), (5, 3, 384), (0, 4, 8), (2, 0, 8)]
MASKS = ["some", "none", "all", "absent"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_embedding_and_every_gradient(shape, mask, dtype, device, within_error, cases):
    floats, chosen = cases.make(shape, mask, dtype, device)
    assert serves_triton("embed_sets", floats[0])
    got, gradients = cases.run(kernels.embed_sets, floats, chosen, dtype)
    eager, eager_gradients = cases.run(reference.embed_sets, floats, chosen, dtype)
    _, truth_gradients = cases.run(reference.embed_sets, floats, chosen, torch.float64)
    assert got.dtype == dtype
    assert torch.equal(got, eager)
    for grad, true, plain in zip(gradients, truth_gradients, eager_gradients, strict=True):
        if true is None:  # the reference has no gradient for a mask token that is not used
            assert grad is None
        else:
            assert grad.dtype == dtype
            within_error(grad, true, plain)


def test_dtypes_and_strides_of_a_training_step(device, within_error, cases):
    """Under autocast features are in half precision and parameters in fp32; views are not copied."""
    floats, mask = cases.make((9, 5, 48), "some", torch.float16, device)
    wide = torch.randn(9, 6, 96, dtype=torch.float16, device=device)
    x = wide[:, 1:, ::2].detach().requires_grad_()
    position = floats[1].transpose(0, 1).contiguous().transpose(0, 1).float().detach().requires_grad_()
    tokens = [t.float().view(1, 1, -1).detach().requires_grad_() for t in floats[2:]]
    out = kernels.embed_sets(x, position, mask, *tokens)
    wanted = reference.embed_sets(x, position, mask, *(t.flatten() for t in tokens))
    assert torch.equal(out, wanted)
    weight = torch.randn_like(out)
    leaves = (x, position, *tokens)
    got = torch.autograd.grad(out, leaves, weight)
    plain = torch.autograd.grad(wanted, leaves, weight)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    out = reference.embed_sets(exact[0], exact[1], mask, exact[2].flatten(), exact[3].flatten())
    for grad, leaf, true, eager in zip(
        got, leaves, torch.autograd.grad(out, exact, weight.double()), plain, strict=True
    ):
        assert grad.dtype == leaf.dtype
        within_error(grad, true, eager)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2, 3), (0, 3)], ids=str)
@pytest.mark.parametrize("mask", ["some", "absent"])
def test_only_the_gradients_that_are_wanted(wanted, mask, device, cases):
    floats, chosen = cases.make((5, 4, 16), mask, torch.float32, device)
    if mask == "absent":
        wanted = tuple(i for i in wanted if i != 2)
    for i in wanted:
        floats[i].requires_grad_()
    leaves = [floats[i] for i in wanted]
    weight = torch.randn(5, 5, 16, device=device)
    got, want = (
        torch.autograd.grad(embed(floats[0], floats[1], chosen, *floats[2:]), leaves, weight)
        for embed in (kernels.embed_sets, reference.embed_sets)
    )
    for have, true in zip(got, want, strict=True):
        torch.testing.assert_close(have, true)


def test_sizes_beyond_the_numbering_are_refused():
    from scalefast.kernels.ops.set_embedding.triton_tile import check_number

    with pytest.raises(ValueError, match=r"tokens must be fewer than 2\^30 in number; got 1073741824"):
        check_number(1 << 30, "tokens")


def test_masked_clips_may_hold_anything(device, cases):
    floats, mask = cases.make((4, 6, 32), "some", torch.float32, device)
    floats[0][mask] = float("nan")
    assert torch.isfinite(kernels.embed_sets(floats[0], floats[1], mask, *floats[2:])).all()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("shape", [(37, 8, 32), (7, 5, 13), (2, 3, 1030), (0, 4, 8)], ids=str)
def test_mask_drawn_in_the_kernel_is_draw_mask(shape, probability, device, cases):
    floats, _ = cases.make(shape, "absent", torch.float32, device)
    rows = torch.arange(shape[0], device=device) * 12345 + 2**31
    rng = RandomState.create(2**45 + 7, step=3, rows=rows)
    wanted = reference.draw_mask(rng, clips=shape[1], threshold=round(probability * 2**32))
    assert torch.equal(kernels.draw_mask(rng, clips=shape[1], probability=probability), wanted)
    leaves = [t.detach().requires_grad_() for t in floats]
    tokens, mask = embed_drawn_sets(*leaves, rng=rng, probability=probability)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, wanted)
    again = kernels.embed_sets(leaves[0], leaves[1], wanted, *leaves[2:])
    assert torch.equal(tokens, again)
    weight = torch.randn_like(tokens)
    for got, same in zip(
        torch.autograd.grad(tokens, leaves, weight), torch.autograd.grad(again, leaves, weight), strict=True
    ):
        assert torch.equal(got, same)


def test_many_shares_are_summed(device, within_error, monkeypatch, cases):
    """More tiles than programs, and more programs than one step of the second stage."""
    from scalefast.kernels.ops.set_embedding import triton_embed as fused

    monkeypatch.setattr(fused, "_BACKWARD_BYTES", 64)  # tiles of one row
    monkeypatch.setattr(fused, "_PROGRAMS", 130)
    floats, mask = cases.make((29, 4, 16), "some", torch.float32, device)
    _, got = cases.run(kernels.embed_sets, floats, mask, torch.float32)
    _, eager = cases.run(reference.embed_sets, floats, mask, torch.float32)
    _, truth = cases.run(reference.embed_sets, floats, mask, torch.float64)
    for grad, true, plain in zip(got, truth, eager, strict=True):
        within_error(grad, true, plain)


def test_same_bits_twice(device, cases):
    floats, mask = cases.make((37, 8, 32), "some", torch.float32, device)
    first, second = (cases.run(kernels.embed_sets, floats, mask, torch.float32) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


# The gather


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
def test_many_sets(device, cases):
    floats, mask = cases.make((65_537, 3, 16), "some", torch.bfloat16, device)
    got, gradients = cases.run(kernels.embed_sets, floats, mask, torch.bfloat16)
    assert torch.equal(got, reference.embed_sets(floats[0], floats[1], mask, *floats[2:]))
    _, truth = cases.run(reference.embed_sets, floats, mask, torch.float64)
    for grad, true in zip(gradients, truth, strict=True):
        assert (grad.double() - true).abs().max() <= 0.01 * true.abs().max()
    capacity = 100_000
    for have, want in zip(
        kernels.gather_masked(floats[0], mask, capacity=capacity),
        reference.gather_masked(floats[0], mask, capacity=capacity),
        strict=True,
    ):
        assert torch.equal(have, want)
