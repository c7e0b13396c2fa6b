"""Set attention against loops over single sets in fp64; packing, padding and dropout."""

from __future__ import annotations

import math

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState, SetLayout
from scalefast.kernels.ops.philox import Site, dropout_multiplier

LENGTHS = {
    "one set of one": [1],
    "ragged": [9, 1, 4, 7, 9],
    "with an empty set": [3, 0, 5],
    "primes": [13, 11, 2],
    "long": [130, 17],
}


def make(lengths, heads, dim, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(sum(lengths), heads, dim, generator=g, dtype=torch.float64).to(dtype) for _ in range(3)
    ]


def one_by_one(q, k, v, lengths, p=0.0, rng=None):
    """Each set by itself, each head by itself."""
    out, start = [], 0
    for i, n in enumerate(lengths):
        part = slice(start, start + n)
        heads = []
        for h in range(q.shape[1]):
            scores = q[part, h] @ k[part, h].T / math.sqrt(q.shape[2])
            weights = torch.softmax(scores, dim=1)
            if p > 0 and n:
                weights = weights * single_dropout(rng, i, h, n, p).to(weights.dtype)
            heads.append(weights @ v[part, h])
        out.append(torch.stack(heads, dim=1))
        start += n
    return torch.cat(out)


def single_dropout(rng, i, head, n, p):
    """The multiplier of (head, query, key), one query at a time, straight from the definition."""
    one = rng.with_rows(rng.rows[i : i + 1])
    rows = []
    for query in range(n):
        blocks = ((head << 24) + (query << 12)) // 8 + torch.arange(-(-n // 8))
        rows.append(
            dropout_multiplier(one, site=Site.ATTENTION_DROPOUT, blocks=blocks, p=p, dtype=torch.float64)[
                0, :n
            ]
        )
    return torch.stack(rows)


def pad(x, lengths, to):
    out, start = x.new_full((len(lengths), to, *x.shape[1:]), 3.0), 0
    for i, n in enumerate(lengths):
        out[i, :n] = x[start : start + n]
        start += n
    return out


@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed_and_padded_outputs_and_gradients(lengths, dtype, p, within_error):
    rng = RandomState.create(3, step=1, rows=torch.arange(len(lengths)) + 50) if p else None
    qkv = make(lengths, 2, 5, dtype)
    weight = torch.randn(qkv[0].shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def run(tensors, function):
        tensors = [t.clone().requires_grad_() for t in tensors]
        out = function(*tensors)
        out.backward(weight.to(out.dtype))
        return [out.detach(), *(t.grad for t in tensors)]

    truth = run([t.double() for t in qkv], lambda *t: one_by_one(*t, lengths, p, rng))
    eager = run(qkv, lambda *t: one_by_one(*t, lengths, p, rng))
    packed = run(
        qkv, lambda *t: kernels.set_attention(*t, lengths=torch.tensor(lengths), dropout_p=p, rng=rng)
    )
    longest = max(lengths) + 2
    keep = torch.cat([i * longest + torch.arange(n) for i, n in enumerate(lengths)])

    def padded(*t):
        t = [pad(x, lengths, longest) for x in t]
        out = kernels.set_attention(*t, lengths=torch.tensor(lengths), dropout_p=p, rng=rng)
        rest = torch.ones(len(lengths) * longest).bool()
        rest[keep] = False
        assert not out.flatten(0, 1)[rest].any(), "padding must come out as zeros"
        return out.flatten(0, 1)[keep]

    for got in (packed, run(qkv, padded)):
        for one, two, three in zip(got, truth, eager, strict=True):
            within_error(one, two, three)


@pytest.mark.parametrize("backend", ["auto", "sdpa", "reference"])
def test_dense_sets_agree_on_every_backend(backend, within_error):
    q, k, v = (t.view(4, 9, 8, 32) for t in make([36], 8, 32, torch.float32))
    out = kernels.set_attention(q, k, v, attention_backend=backend)
    truth = kernels.set_attention(q.double(), k.double(), v.double())
    within_error(out, truth, kernels.set_attention(q, k, v, attention_backend="reference"))


def test_layout_is_reused_and_knows_its_tokens():
    lengths = torch.tensor([2, 0, 3])
    layout = SetLayout.from_lengths(lengths)
    assert (layout.max_length, layout.total) == (3, 5)
    assert layout.offsets.tolist() == [0, 2, 2, 5]
    assert layout.set_of_token().tolist() == [0, 0, 2, 2, 2]
    assert layout.slot_of_token().tolist() == [0, 1, 0, 1, 2]
    q, k, v = make([2, 0, 3], 1, 4, torch.float32)
    assert torch.equal(
        kernels.set_attention(q, k, v, layout=layout), kernels.set_attention(q, k, v, lengths=lengths)
    )


def test_many_sets_and_the_same_bits_twice():
    q = torch.randn(65_537, 2, 1, 4, generator=torch.Generator().manual_seed(0))
    out = kernels.set_attention(q, q, q)
    assert torch.equal(out, kernels.set_attention(q, q, q))
    last = kernels.set_attention(q[-1:], q[-1:], q[-1:], attention_backend="reference")
    torch.testing.assert_close(out[-1:], last)


def test_bad_input_is_named():
    q = torch.randn(2, 3, 4, 8)
    attend = kernels.set_attention
    with pytest.raises(ValueError, match="q must be floating"):
        attend(q[0, 0], q[0, 0], q[0, 0])
    with pytest.raises(ValueError, match="one shape"):
        attend(q, q[:1], q)
    with pytest.raises(ValueError, match="one dtype"):
        attend(q, q.double(), q)
    with pytest.raises(ValueError, match=r"lengths must be in \[0, 3\]; got 1 to 4"):
        attend(q, q, q, lengths=torch.tensor([1, 4]))
    with pytest.raises(ValueError, match=r"lengths must be integers \[2\]"):
        attend(q, q, q, lengths=torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="sum to 5 tokens"):
        attend(q[0], q[0], q[0], lengths=torch.tensor([5]))
    with pytest.raises(ValueError, match="need lengths or layout"):
        attend(q[0], q[0], q[0])
    with pytest.raises(ValueError, match="layout goes with packed"):
        attend(q, q, q, layout=SetLayout.from_lengths(torch.tensor([3, 3])))
    with pytest.raises(ValueError, match=r"dropout_p = 0.1 needs rng"):
        attend(q, q, q, dropout_p=0.1)
    with pytest.raises(ValueError, match=r"dropout_p = 1\.0"):
        attend(q, q, q, dropout_p=1.0)
    with pytest.raises(ValueError, match="one row for each of 2 sets; got 3"):
        attend(q, q, q, dropout_p=0.1, rng=RandomState.create(0, rows=torch.arange(3)))
    with pytest.raises(ValueError, match="attention_backend must be one of"):
        attend(q, q, q, attention_backend="flash")
    rng = RandomState.create(0, rows=torch.arange(2))
    with pytest.raises(ValueError, match="'sdpa' serves no dropout"):
        attend(q, q, q, dropout_p=0.1, rng=rng, attention_backend="sdpa")
    with pytest.raises(ValueError, match="must not be negative"):
        SetLayout.from_lengths(torch.tensor([-1, 2]))
