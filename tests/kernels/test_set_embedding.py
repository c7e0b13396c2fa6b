"""Set embedding and the gather of masked tokens against independent fp64 loops."""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState

SHAPES = [(1, 1, 1), (3, 8, 32), (7, 5, 13), (0, 4, 8), (2, 0, 8)]
MASKS = ["none", "some", "all", "absent"]


def make(shape, mask, dtype):
    g = torch.Generator().manual_seed(1)
    b, v, h = shape
    x, pos = (torch.randn(b, v, h, generator=g, dtype=torch.float64).to(dtype) for _ in range(2))
    mask_token, cls = (torch.randn(h, generator=g, dtype=torch.float64).to(dtype) for _ in range(2))
    chosen = {"none": torch.zeros(b, v).bool(), "all": torch.ones(b, v).bool(), "absent": None}
    return x, pos, chosen.get(mask, torch.rand(b, v, generator=g) < 0.4), mask_token, cls


def by_hand(x, pos, mask, mask_token, cls):
    sets = []
    for b in range(x.shape[0]):
        rows = [cls]
        for v in range(x.shape[1]):
            rows.append((mask_token if mask is not None and mask[b, v] else x[b, v]) + pos[b, v])
        sets.append(torch.stack(rows))
    return torch.stack(sets) if sets else x.new_zeros(0, 1 + x.shape[1], x.shape[2])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_embedding_and_every_gradient(shape, mask, dtype, within_error):
    x, pos, chosen, mask_token, cls = make(shape, mask, dtype)
    inputs = [t.clone().requires_grad_() for t in (x, pos, mask_token, cls)]
    truth_in = [t.double().clone().requires_grad_() for t in (x, pos, mask_token, cls)]
    eager_in = [t.clone().requires_grad_() for t in (x, pos, mask_token, cls)]
    out = kernels.embed_sets(inputs[0], inputs[1], chosen, inputs[2], inputs[3])
    truth = by_hand(truth_in[0], truth_in[1], chosen, truth_in[2], truth_in[3])
    eager = by_hand(eager_in[0], eager_in[1], chosen, eager_in[2], eager_in[3])
    assert out.dtype == dtype
    if out.numel() == 0 or shape[0] == 0:
        assert out.shape == truth.shape
        return
    within_error(out, truth, eager)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for t, w in ((out, weight.to(dtype)), (truth, weight), (eager, weight.to(dtype))):
        t.backward(w)
    for got, want, plain in zip(inputs, truth_in, eager_in, strict=True):
        if want.grad is None or want.numel() == 0:
            assert got.grad is None or not got.grad.any()
        else:
            within_error(got.grad, want.grad, torch.zeros_like(plain) if plain.grad is None else plain.grad)


def test_non_contiguous_input_and_token_shapes():
    x = torch.randn(4, 6, 10).transpose(0, 1)[:, :, ::2]
    mask = torch.rand(6, 4) < 0.5
    token = torch.randn(1, 1, 5)
    out = kernels.embed_sets(x, x, mask, token, token)
    assert torch.equal(out, by_hand(x, x, mask, token.flatten(), token.flatten()))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 4), (3, 0, 2)], ids=str)
def test_gather_with_and_without_capacity(shape, share):
    g = torch.Generator().manual_seed(3)
    tokens = torch.randn(*shape, generator=g)
    mask = torch.rand(shape[:2], generator=g) < share
    wanted = [i for i, m in enumerate(mask.flatten().tolist()) if m]
    rows, index, count = kernels.gather_masked(tokens, mask)
    assert index.tolist() == wanted and count.tolist() == [len(wanted)]
    assert torch.equal(rows, tokens.flatten(0, 1)[mask.flatten()])
    rows, index, count = kernels.gather_masked(tokens, mask, capacity=40)
    assert index.tolist() == wanted + [-1] * (40 - len(wanted))
    assert count.dtype == torch.int32 and index.dtype == torch.int64
    assert torch.equal(rows[: len(wanted)], tokens.flatten(0, 1)[mask.flatten()])
    assert not rows[len(wanted) :].any()


def test_gather_sends_gradients_to_the_masked_tokens_alone():
    tokens = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.autograd.gradcheck(lambda t: kernels.gather_masked(t, mask, capacity=17)[0], (tokens,))
    kernels.gather_masked(tokens, mask, capacity=17)[0].sum().backward()
    assert torch.equal(tokens.grad, mask[..., None].expand(4, 5, 3).double())


def test_capacity_holds_the_draw():
    assert kernels.default_capacity(8192, probability=0.25) == 2304
    assert kernels.default_capacity(10, probability=0.5) == 10
    rng = RandomState.create(0, rows=torch.arange(1024))
    assert kernels.draw_mask(rng, clips=8, probability=0.25).sum() <= 2304


def test_mask_is_bernoulli_and_belongs_to_the_set():
    rng = RandomState.create(7, step=2, rows=torch.arange(4000))
    mask = kernels.draw_mask(rng, clips=8, probability=0.25)
    assert abs(mask.float().mean() - 0.25) < 5 * (0.25 * 0.75 / mask.numel()) ** 0.5
    assert torch.equal(
        kernels.draw_mask(rng.with_rows(torch.tensor([17])), clips=8, probability=0.25)[0], mask[17]
    )
    assert kernels.draw_mask(rng, clips=3, probability=1.0).all()
    assert not kernels.draw_mask(rng, clips=3, probability=0.0).any()


def test_bad_input_is_named():
    x, h = torch.randn(2, 3, 4), torch.zeros(4)
    with pytest.raises(ValueError, match=r"x must be floating \[B, V, H\].*\[2, 3\]"):
        kernels.embed_sets(x[..., 0], x, None, h, h)
    with pytest.raises(ValueError, match=r"position_embeddings must have x's shape \(2, 3, 4\)"):
        kernels.embed_sets(x, x[:1], None, h, h)
    with pytest.raises(ValueError, match=r"mask must be bool \(2, 3\)"):
        kernels.embed_sets(x, x, torch.zeros(2, 3), h, h)
    with pytest.raises(ValueError, match="cls_token must hold H = 4 numbers"):
        kernels.embed_sets(x, x, None, h, torch.zeros(5))
    with pytest.raises(ValueError, match="one device"):
        kernels.embed_sets(x, x, None, h, torch.zeros(4, device="meta"))
    with pytest.raises(ValueError, match="3 tokens are masked, more than capacity = 2"):
        kernels.gather_masked(x[:1], torch.ones(1, 3).bool(), capacity=2)
    with pytest.raises(ValueError, match="capacity = 0"):
        kernels.gather_masked(x, torch.ones(2, 3).bool(), capacity=0)
    with pytest.raises(ValueError, match=r"probability = 1\.5"):
        kernels.draw_mask(RandomState.create(0, rows=torch.arange(2)), clips=3, probability=1.5)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_embedding_with_a_drawn_mask(probability):
    x, pos, _, mask_token, cls = make((6, 5, 8), "absent", torch.float32)
    rng = RandomState.create(4, step=2, rows=torch.arange(6) * 7)
    tokens, mask = kernels.embed_drawn_sets(x, pos, mask_token, cls, rng=rng, probability=probability)
    assert torch.equal(mask, kernels.draw_mask(rng, clips=5, probability=probability))
    assert torch.equal(tokens, by_hand(x, pos, mask, mask_token, cls))
    with pytest.raises(ValueError, match="one row for each of 6 sets; got 2"):
        few = rng.with_rows(rng.rows[:2])
        kernels.embed_drawn_sets(x, pos, mask_token, cls, rng=few, probability=probability)
