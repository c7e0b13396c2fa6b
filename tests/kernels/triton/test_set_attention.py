"""The Triton kernels of set attention against the fp64 reference: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import SetLayout
from scalefast.kernels.ops.set_attention import reference
from scalefast.kernels.ops.set_attention.layout import most_tokens

CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs CUDA")
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)]

# sets, tokens, heads, head dimension
DENSE = {
    "reference shape": (15, 9, 2, 32),
    "one set of one": (1, 1, 1, 1),
    "primes": (7, 13, 3, 5),
    "a full tile": (2, 64, 1, 16),
    "one more than a tile": (3, 65, 1, 16),
    "the most": (2, 128, 1, 128),
    "odd head dimension": (5, 17, 1, 77),
}
RAGGED = {
    "one set of one": [1],
    "ragged": [9, 1, 4, 7, 9, 3, 9, 9, 9, 9, 2, 9],
    "with empty sets": [0, 3, 0, 0, 5, 0],
    "all empty but one": [0, 0, 8],
    "none empty, long": [33, 64, 1, 40],
    "up to the most": [128, 1, 77, 51],
}


def skip_unserved(longest, dtype):
    if longest > most_tokens(dtype):
        pytest.skip(f"{dtype} is served up to {most_tokens(dtype)} tokens")


@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", DENSE.values(), ids=DENSE)
def test_dense_outputs_and_gradients(shape, dtype, p, device, within_error, cases):
    skip_unserved(shape[1], dtype)
    qkv, grad = cases.make(shape, dtype, device)
    rng = cases.state(device, shape[0], p)
    cases.check(
        within_error,
        lambda *t: kernels.set_attention(*t, dropout_p=p, rng=rng, attention_backend="triton"),
        lambda *t: reference.padded_attention(*t, lengths=None, dropout_p=p, rng=rng),
        qkv,
        grad,
    )


@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", RAGGED.values(), ids=RAGGED)
def test_packed_outputs_and_gradients(lengths, dtype, p, device, within_error, cases):
    skip_unserved(max(lengths), dtype)
    qkv, grad = cases.make((sum(lengths), 1, 16), dtype, device)
    rng = cases.state(device, len(lengths), p)
    layout = SetLayout.from_lengths(torch.tensor(lengths, device=device))
    assert layout.tile_starts is not None and layout.owners is not None
    cases.check(
        within_error,
        lambda *t: kernels.set_attention(*t, layout=layout, dropout_p=p, rng=rng),
        lambda *t: reference.packed_attention(*t, layout=layout, dropout_p=p, rng=rng),
        qkv,
        grad,
    )


@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", [[9, 1, 4, 0, 9], [0, 0], [70, 3]], ids=["ragged", "empty", "long"])
def test_padding_is_never_read_and_comes_out_as_zeros(lengths, dtype, p, device, within_error, cases):
    tokens = max(lengths) + 2
    skip_unserved(tokens, dtype)
    qkv, grad = cases.make((len(lengths), tokens, 2, 16), dtype, device)
    counts = torch.tensor(lengths, device=device, dtype=torch.int32)
    padding = torch.arange(tokens, device=device) >= counts[:, None]
    clean = qkv.masked_fill(padding[:, :, None, None, None], 0.0)
    qkv = qkv.masked_fill(padding[:, :, None, None, None], math.nan)
    rng = cases.state(device, len(lengths), p)

    def attend(*t):
        return kernels.set_attention(*t, lengths=counts, dropout_p=p, rng=rng)

    cases.check(
        within_error,
        attend,
        lambda *t: reference.padded_attention(*t, lengths=counts, dropout_p=p, rng=rng),
        clean,
        grad,
    )
    for one, two in zip(cases.run(attend, qkv, grad), cases.run(attend, clean, grad), strict=True):
        assert torch.equal(one, two)
        assert not one[padding].any()


@pytest.mark.parametrize("tokens", [1, 8, 9, 31, 33, 64, 70, 128])
def test_dropped_weights_are_those_of_the_reference(tokens, device, cases):
    """With equal scores and v the identity, the output is the dropped weight matrix itself."""
    sets, heads, p = (3 if tokens < 33 else 2), 2, 0.4
    dtype = torch.float32 if tokens <= 64 else torch.float16
    q = torch.zeros(sets, tokens, heads, tokens, device=device, dtype=dtype)
    v = torch.eye(tokens, device=device, dtype=dtype)[None, :, None].expand(sets, tokens, heads, tokens)
    rng = cases.state(device, sets, p, layer=3)
    out = kernels.set_attention(q, q, v, dropout_p=p, rng=rng, attention_backend="triton").float()
    drawn = reference.attention_dropout(rng, heads=heads, tokens=tokens, p=p, dtype=torch.float32)
    assert torch.equal(out.transpose(1, 2) != 0, drawn != 0)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(out.transpose(1, 2) * tokens, drawn, rtol=tolerance, atol=tolerance)


def test_dropout_knows_nothing_of_the_packing(device, cases):
    lengths = [9, 2, 7, 9]
    qkv, _ = cases.make((sum(lengths), 2, 16), torch.float32, device)
    rng = cases.state(device, 4, 0.5)
    packed = kernels.set_attention(
        *qkv.unbind(1), lengths=torch.tensor(lengths, device=device), dropout_p=0.5, rng=rng
    )
    for i, part in enumerate(qkv.split(lengths)):
        alone = rng.with_rows(rng.rows[i : i + 1])
        one = kernels.set_attention(*part[None].unbind(2), dropout_p=0.5, rng=alone)
        torch.testing.assert_close(one[0], packed.split(lengths)[i])


def test_any_strides(device, within_error):
    """Heads before tokens, a transposed head dimension, an expanded gradient: by strides, each on its own."""
    g = torch.Generator().manual_seed(1)
    q = torch.randn(5, 2, 9, 16, generator=g).to(device).transpose(1, 2)
    k = torch.randn(5, 9, 16, 2, generator=g).to(device).transpose(2, 3)
    v = torch.randn(5, 9, 4, 16, generator=g).to(device)[:, :, ::2]

    def gradients(attend, dtype):
        tensors = [t.to(dtype).detach().requires_grad_() for t in (q, k, v)]
        if dtype == q.dtype:
            assert [t.stride() for t in tensors] == [t.stride() for t in (q, k, v)]
        return torch.autograd.grad(attend(*tensors)[:, :, :, 3].sum(), tensors)

    def plain(*t):
        return reference.padded_attention(*t, lengths=None, dropout_p=0.0, rng=None)

    got = gradients(lambda *t: kernels.set_attention(*t, attention_backend="triton"), torch.float32)
    for one, two, three in zip(
        got, gradients(plain, torch.float64), gradients(plain, torch.float32), strict=True
    ):
        within_error(one, two, three)


def test_large_scores_do_not_overflow(device):
    q = torch.full((2, 3, 1, 16), 100.0, device=device)
    out = kernels.set_attention(q, q, q)
    torch.testing.assert_close(out, q)
    torch.testing.assert_close(kernels.set_attention(q, -q, q), q)


@pytest.mark.parametrize(
    "shape", [(0, 9, 2, 16), (3, 0, 2, 16), (0, 2, 16)], ids=["no sets", "no tokens", "packed"]
)
def test_nothing_gives_nothing(shape, device):
    q = torch.zeros(shape, device=device, requires_grad=True)
    lengths = torch.zeros(4, dtype=torch.int64, device=device) if q.ndim == 3 else None
    out = kernels.set_attention(q, q, q, lengths=lengths)
    assert out.shape == shape
    out.sum().backward()
    assert q.grad.shape == shape


@pytest.mark.parametrize("most", [1, 9, 32, 64, 65, 128])
def test_tiles_are_those_of_next_fit(most, device):
    g = torch.Generator().manual_seed(most)
    for sets in (1, 2, 50):
        lengths = torch.randint(0, most + 1, (sets,), generator=g)
        lengths[sets // 2] = most
        starts = SetLayout.from_lengths(lengths.to(device)).tiles()[0].tolist()
        rows, expected, total, held = (64 if most <= 64 else 128), [0], 0, 0
        for n in lengths.tolist():
            if held + n > rows:
                expected.append(total)
                held = 0
            held, total = held + n, total + n
        expected.append(total)
        assert starts[: len(expected)] == expected
        assert set(starts[len(expected) :]) <= {total}, "the tiles too many are empty"


@needs_cuda
@pytest.mark.parametrize("backend", ["triton", "sdpa"])
def test_65537_sets(backend, device):
    g = torch.Generator(device).manual_seed(0)
    q = torch.randn(65_537, 2, 2, 16, device=device, generator=g).half().requires_grad_()
    out = kernels.set_attention(q, q, q, attention_backend=backend)
    out.sum().backward()
    for part in (slice(0, 3), slice(-3, None)):
        x = q.detach()[part].double().requires_grad_()
        truth = reference.padded_attention(x, x, x, lengths=None, dropout_p=0.0, rng=None)
        truth.sum().backward()
        torch.testing.assert_close(out[part].double(), truth, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(q.grad[part].double(), x.grad, rtol=4e-3, atol=4e-3)
