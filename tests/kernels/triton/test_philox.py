"""Philox inside Triton kernels: bit for bit the reference's words, and the same numbers dropped."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from scalefast.kernels.ops import philox
from scalefast.kernels.ops.philox import RandomState, Site, dropout
from scalefast.kernels.ops.philox.triton import dropout_keep, dropout_keep8, philox4

CUDA = torch.cuda.is_available()
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if CUDA else [])]
# Ids above 2^31 and 2^32, and a negative one: only the low 32 bits count, in both implementations.
ROWS = [0, 5, 2**31 + 7, 2**40 + 3, -3]


@triton.jit
def draw(p_state, p_rows, p_words, p_keep, p_keep8, site, limit, first, N: tl.constexpr):
    row = tl.program_id(0)
    seed, step, i_row = tl.load(p_state), tl.load(p_state + 1), tl.load(p_rows + row)
    o = tl.arange(0, N)
    w0, w1, w2, w3 = philox4(seed, step, i_row, site, first + o)
    p_row = p_words + row * 4 * N + o
    tl.store(p_row, w0.to(tl.int64))
    tl.store(p_row + N, w1.to(tl.int64))
    tl.store(p_row + 2 * N, w2.to(tl.int64))
    tl.store(p_row + 3 * N, w3.to(tl.int64))
    tl.store(p_keep + row * N + o, dropout_keep(seed, step, i_row, site, first + o, limit).to(tl.int8))
    b_keep = dropout_keep8(seed, step, i_row, site, first // 8 + tl.arange(0, N // 8), limit)
    tl.store(p_keep8 + row * N + o, tl.reshape(b_keep, [N]).to(tl.int8))


@triton.jit
def draw_tile(p_state, p_rows, p_keep, site, limit, R: tl.constexpr, K: tl.constexpr):
    seed, step = tl.load(p_state), tl.load(p_state + 1)
    row = tl.load(p_rows + tl.arange(0, R))[:, None]
    b_keep = tl.reshape(dropout_keep8(seed, step, row, site, tl.arange(0, K)[None, :], limit), [R, 8 * K])
    tl.store(p_keep + tl.arange(0, R)[:, None] * 8 * K + tl.arange(0, 8 * K)[None, :], b_keep.to(tl.int8))


def launch(rng: RandomState, *, site: int, p: float, first: int, count: int):
    sets, device = len(rng.rows), rng.rows.device
    words = torch.empty(sets, 4, count, dtype=torch.int64, device=device)
    keep = torch.empty(sets, count, dtype=torch.int8, device=device)
    keep8 = torch.empty_like(keep)
    limit, _ = philox.dropout_limit(p)
    draw[(sets,)](
        rng.state,
        rng.rows,
        words,
        keep,
        keep8,
        philox.site_word(site, rng.layer),
        limit,
        first,
        N=count,
    )
    return words, keep.bool(), keep8.bool()


@pytest.mark.parametrize("site", [Site.VIEW, Site.MASK, Site.ATTENTION_DROPOUT, Site.OUTPUT_DROPOUT])
@pytest.mark.parametrize("layer", [0, 3])
def test_words_are_the_references(site, layer, device):
    rows = torch.tensor(ROWS, device=device)
    rng = RandomState.create(2**62 + 12345678901, step=2**33 + 5, rows=rows).at_layer(layer)
    words, _, _ = launch(rng, site=site, p=0.5, first=2**24 - 8, count=16)
    wanted = rng.words(site, torch.arange(2**24 - 8, 2**24 + 8, device=device))
    assert torch.equal(words, torch.stack(wanted, dim=1))


def test_known_answer_of_random123(device):
    rng = RandomState.create(0, rows=torch.zeros(1, dtype=torch.int64, device=device))
    words, _, _ = launch(rng, site=0, p=0.5, first=0, count=16)
    assert words[0, :, 0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.97])
def test_the_same_numbers_are_dropped(p, device):
    rng = RandomState.create(7, step=11, rows=torch.tensor(ROWS, device=device)).at_layer(1)
    _, keep, keep8 = launch(rng, site=Site.HIDDEN_DROPOUT, p=p, first=64, count=128)
    blocks = torch.arange(8, 24, device=device)
    wanted = philox.dropout_multiplier(rng, site=Site.HIDDEN_DROPOUT, blocks=blocks, p=p, dtype=torch.float32)
    assert torch.equal(keep, wanted > 0)
    assert torch.equal(keep8, wanted > 0)
    assert keep.all() if p == 0 else not keep.all()


def test_blocks_of_many_rows_at_once(device):
    rng = RandomState.create(3, rows=torch.arange(4, device=device) * 1001)
    keep = torch.empty(4, 64, dtype=torch.int8, device=device)
    limit, _ = philox.dropout_limit(0.4)
    draw_tile[(1,)](rng.state, rng.rows, keep, philox.site_word(17, 0), limit, R=4, K=8)
    wanted = philox.dropout_multiplier(
        rng, site=17, blocks=torch.arange(8, device=device), p=0.4, dtype=torch.float32
    )
    assert torch.equal(keep.bool(), wanted > 0)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1 - 2**-20])
def test_probabilities_that_leave_nothing_are_refused(p):
    with pytest.raises(ValueError, match="dropout probability"):
        philox.dropout_limit(p)


# Dropout of activations


def plain_dropout(x, rng, site, p):
    numbers = x[:1].numel()
    blocks = torch.arange(-(-numbers // 8), device=x.device)
    drawn = philox.dropout_multiplier(rng, site=site, blocks=blocks, p=p, dtype=x.dtype, lanes=numbers)
    return x * drawn.view_as(x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (5, 9, 16), (5, 7, 13), (3, 2, 1500), (2, 0, 4), (0, 3)], ids=str)
def test_dropout_and_its_gradient_are_the_references(shape, dtype, device):
    x = torch.randn(shape, device=device).to(dtype).requires_grad_()
    rows = torch.tensor(ROWS[: shape[0]], dtype=torch.int64, device=device)
    rng = RandomState.create(2**40 + 1, step=6, rows=rows).at_layer(2)
    out, wanted = dropout(x, rng, site=Site.OUTPUT_DROPOUT, p=0.3), plain_dropout(x, rng, 19, 0.3)
    assert out.dtype == dtype
    assert torch.equal(out, wanted)
    weight = torch.randn_like(x)
    (got,) = torch.autograd.grad(out, x, weight)
    (want,) = torch.autograd.grad(wanted, x, weight)
    assert torch.equal(got, want)


def test_dropout_of_a_view(device):
    x = torch.randn(4, 16, 6, device=device).transpose(1, 2)
    rng = RandomState.create(1, rows=torch.arange(4, device=device))
    assert torch.equal(dropout(x, rng, site=17, p=0.5), plain_dropout(x, rng, 17, 0.5))
    assert dropout(x, rng, site=17, p=0.0) is x


def test_dropout_opcheck_and_compile(device):
    x = torch.randn(4, 3, 6, device=device, requires_grad=True)
    rng = RandomState.create(1, rows=torch.arange(4, device=device))

    def step(x):
        return dropout(x, rng, site=18, p=0.25).sin()

    eager = step(x)
    torch.library.opcheck(torch.ops.scalefast.dropout.default, (x, rng.state, rng.rows, 18, 0.25))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(eager, compiled)
    weight = torch.randn_like(x)
    assert torch.equal(torch.autograd.grad(eager, x, weight)[0], torch.autograd.grad(compiled, x, weight)[0])


def test_dropout_refuses(device):
    rng = RandomState.create(1, rows=torch.arange(4, device=device))
    with pytest.raises(ValueError, match=r"floating \[4, ...\]; got \(3, 2\)"):
        dropout(torch.randn(3, 2, device=device), rng, site=18, p=0.5)
    with pytest.raises(ValueError, match=r"p = 1\.0"):
        dropout(torch.randn(4, 2, device=device), rng, site=18, p=1.0)


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
def test_captured_dropout_draws_anew(device):
    x = torch.randn(64, 17, 512, device=device, dtype=torch.bfloat16)
    rng = RandomState.create(1, rows=torch.arange(64, device=device))
    dropout(x, rng, site=18, p=0.1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = dropout(x, rng, site=18, p=0.1)
    for step in (1, 2):
        rng.state[1] = step
        graph.replay()
        assert torch.equal(out, plain_dropout(x, rng, 18, 0.1))
