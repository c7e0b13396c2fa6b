"""Set embedding and the gather of masked tokens in Triton, against the reference."""

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


def make(shape, mask, dtype, device, seed=1):
    g = torch.Generator().manual_seed(seed)
    sets, clips, width = shape
    x, position = (torch.randn(sets, clips, width, generator=g, dtype=torch.float64) for _ in range(2))
    tokens = [torch.randn(width, generator=g, dtype=torch.float64) for _ in range(2)]
    chosen = {
        "some": torch.rand(sets, clips, generator=g) < 0.4,
        "none": torch.zeros(sets, clips, dtype=torch.bool),
        "all": torch.ones(sets, clips, dtype=torch.bool),
        "absent": None,
    }[mask]
    floats = [t.to(device, dtype) for t in (x, position, *tokens)]
    return floats, None if chosen is None else chosen.to(device)


def run(function, floats, mask, dtype):
    leaves = [t.detach().to(dtype).requires_grad_() for t in floats]
    out = function(leaves[0], leaves[1], mask, leaves[2], leaves[3])
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    out.backward(weight.to(out))
    return out.detach(), [None if t.grad is None else t.grad for t in leaves]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_embedding_and_every_gradient(shape, mask, dtype, device, within_error):
    floats, chosen = make(shape, mask, dtype, device)
    assert serves_triton("embed_sets", floats[0])
    got, gradients = run(kernels.embed_sets, floats, chosen, dtype)
    eager, eager_gradients = run(reference.embed_sets, floats, chosen, dtype)
    _, truth_gradients = run(reference.embed_sets, floats, chosen, torch.float64)
    assert got.dtype == dtype
    assert torch.equal(got, eager)
    for grad, true, plain in zip(gradients, truth_gradients, eager_gradients, strict=True):
        if true is None:  # the reference has no gradient for a mask token that is not used
            assert grad is None
        else:
            assert grad.dtype == dtype
            within_error(grad, true, plain)


def test_dtypes_and_strides_of_a_training_step(device, within_error):
    """Under autocast features are in half precision and parameters in fp32; views are not copied."""
    floats, mask = make((9, 5, 48), "some", torch.float16, device)
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
def test_only_the_gradients_that_are_wanted(wanted, mask, device):
    floats, chosen = make((5, 4, 16), mask, torch.float32, device)
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


def test_masked_clips_may_hold_anything(device):
    floats, mask = make((4, 6, 32), "some", torch.float32, device)
    floats[0][mask] = float("nan")
    assert torch.isfinite(kernels.embed_sets(floats[0], floats[1], mask, *floats[2:])).all()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("shape", [(37, 8, 32), (7, 5, 13), (2, 3, 1030), (0, 4, 8)], ids=str)
def test_mask_drawn_in_the_kernel_is_draw_mask(shape, probability, device):
    floats, _ = make(shape, "absent", torch.float32, device)
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


def test_many_shares_are_summed(device, within_error, monkeypatch):
    """More tiles than programs, and more programs than one step of the second stage."""
    from scalefast.kernels.ops.set_embedding import triton_embed as fused

    monkeypatch.setattr(fused, "_BACKWARD_BYTES", 64)  # tiles of one row
    monkeypatch.setattr(fused, "_PROGRAMS", 130)
    floats, mask = make((29, 4, 16), "some", torch.float32, device)
    _, got = run(kernels.embed_sets, floats, mask, torch.float32)
    _, eager = run(reference.embed_sets, floats, mask, torch.float32)
    _, truth = run(reference.embed_sets, floats, mask, torch.float64)
    for grad, true, plain in zip(got, truth, eager, strict=True):
        within_error(grad, true, plain)


def test_same_bits_twice(device):
    floats, mask = make((37, 8, 32), "some", torch.float32, device)
    first, second = (run(kernels.embed_sets, floats, mask, torch.float32) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


# The gather

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
def test_gather_is_the_references(shape, mask, capacity, dtype, device):
    floats, chosen = make(shape, mask, dtype, device)
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


def test_opcheck(device):
    floats, mask = make((5, 3, 8), "some", torch.float32, device)
    leaves = [t.detach().requires_grad_() for t in floats]
    x, position, token, cls = leaves
    rng = RandomState.create(1, rows=torch.arange(5, device=device))
    ops = torch.ops.scalefast
    kernels.embed_sets(*floats[:2], mask, *floats[2:])  # registers the ops
    torch.library.opcheck(ops.embed_sets_forward.default, (x, position, mask, token, cls))
    torch.library.opcheck(ops.embed_sets_forward.default, (x, position, None, token, cls))
    torch.library.opcheck(
        ops.embed_drawn_forward.default, (x, position, token, cls, rng.state, rng.rows, 1 << 30)
    )
    torch.library.opcheck(ops.draw_mask.default, (rng.state, rng.rows, 7, 1 << 31))
    grad, f32 = torch.randn(5, 4, 8, device=device), torch.float32
    torch.library.opcheck(ops.embed_sets_backward.default, (grad, mask, f32, f32, f32, True, False))
    torch.library.opcheck(ops.gather_masked_forward.default, (x, mask, 10))
    rank = torch.tensor([0, -1, 1] * 5, dtype=torch.int32, device=device)
    torch.library.opcheck(ops.gather_masked_backward.default, (torch.randn(2, 8, device=device), rank, 5, 3))


def test_compiled_whole(device):
    floats, mask = make((6, 4, 16), "some", torch.float32, device)

    def step(x, position, token, cls):
        tokens = kernels.embed_sets(x, position, mask, token, cls)
        rows, index, count = kernels.gather_masked(tokens[:, 1:], mask, capacity=24)
        return rows.square().sum() + tokens.sin().sum(), index, count

    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        leaves = [t.detach().requires_grad_() for t in floats]
        loss, index, count = function(*leaves)
        results.append((loss.detach(), index, count, *torch.autograd.grad(loss, leaves)))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_bad_input(device):
    floats, mask = make((3, 4, 8), "some", torch.float32, device)
    with pytest.raises(ValueError, match=r"mask must be bool \(3, 4\)"):
        kernels.embed_sets(*floats[:2], mask[:, :3], *floats[2:])
    rng = RandomState.create(0, rows=torch.arange(4, device=device))
    with pytest.raises(ValueError, match="one row for each of 3 sets; got 4"):
        embed_drawn_sets(*floats, rng=rng, probability=0.5)
    with pytest.raises(ValueError, match=r"probability = 1\.5"):
        embed_drawn_sets(*floats, rng=rng.with_rows(torch.arange(3, device=device)), probability=1.5)
    with pytest.raises(ValueError, match="capacity = 0"):
        kernels.gather_masked(floats[0], mask, capacity=0)


# On a GPU only


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
def test_many_sets(device):
    floats, mask = make((65_537, 3, 16), "some", torch.bfloat16, device)
    got, gradients = run(kernels.embed_sets, floats, mask, torch.bfloat16)
    assert torch.equal(got, reference.embed_sets(floats[0], floats[1], mask, *floats[2:]))
    _, truth = run(reference.embed_sets, floats, mask, torch.float64)
    for grad, true in zip(gradients, truth, strict=True):
        assert (grad.double() - true).abs().max() <= 0.01 * true.abs().max()
    capacity = 100_000
    for have, want in zip(
        kernels.gather_masked(floats[0], mask, capacity=capacity),
        reference.gather_masked(floats[0], mask, capacity=capacity),
        strict=True,
    ):
        assert torch.equal(have, want)


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
def test_captured_step_draws_anew(device):
    floats, _ = make((64, 8, 32), "absent", torch.float32, device)
    rng = RandomState.create(5, rows=torch.arange(64, device=device))

    def step():
        tokens, mask = embed_drawn_sets(*floats, rng=rng, probability=0.25)
        return mask, *kernels.gather_masked(tokens[:, 1:], mask, capacity=192)

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mask, rows, index, count = step()
    for number in (1, 2):
        rng.state[1] = number
        graph.replay()
        wanted = reference.draw_mask(rng, clips=8, threshold=1 << 30)
        assert torch.equal(mask, wanted)
        assert int(count) == int(wanted.sum())
        tokens = reference.embed_sets(floats[0], floats[1], wanted, *floats[2:])
        for have, want in zip(
            (rows, index), reference.gather_masked(tokens[:, 1:], wanted, capacity=192), strict=False
        ):
            assert torch.equal(have, want)
