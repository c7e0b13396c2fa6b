"""The Triton kernels of set attention against the fp64 reference: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState, SetLayout
from scalefast.kernels.ops.set_attention import reference, set_attention_qkv
from scalefast.kernels.ops.set_attention import triton as fused
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


def make(shape, dtype, device, seed=0):
    """q, k, v as a model makes them: slices of one projection, so none is contiguous. And a gradient."""
    g = torch.Generator().manual_seed(seed)
    *front, heads, dim = shape
    qkv = torch.randn(*front, 3, heads, dim, generator=g, dtype=torch.float64)
    grad = torch.randn(*front, heads, dim, generator=g, dtype=torch.float64)
    return qkv.to(dtype).to(device), grad.to(dtype).to(device)


def run(function, qkv, grad):
    """Output and the gradients of q, k and v."""
    tensors = [t.detach().requires_grad_() for t in qkv.unbind(-3)]
    out = function(*tensors)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad)]


def state(device, sets, p, layer=1):
    if p == 0.0:
        return None
    return RandomState.create(3 << 33, step=5, rows=torch.arange(sets, device=device) + 50).at_layer(layer)


def check(within_error, attend, plain, qkv, grad):
    got = run(attend, qkv, grad)
    truth = run(plain, qkv.double(), grad.double())
    eager = run(plain, qkv, grad)
    for one, two, three in zip(got, truth, eager, strict=True):
        within_error(one, two, three)
    for one, two in zip(got, run(attend, qkv, grad), strict=True):
        assert torch.equal(one, two), "the same bits twice"


@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", DENSE.values(), ids=DENSE)
def test_dense_outputs_and_gradients(shape, dtype, p, device, within_error):
    skip_unserved(shape[1], dtype)
    qkv, grad = make(shape, dtype, device)
    rng = state(device, shape[0], p)
    check(
        within_error,
        lambda *t: kernels.set_attention(*t, dropout_p=p, rng=rng, attention_backend="triton"),
        lambda *t: reference.padded_attention(*t, lengths=None, dropout_p=p, rng=rng),
        qkv,
        grad,
    )


@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", RAGGED.values(), ids=RAGGED)
def test_packed_outputs_and_gradients(lengths, dtype, p, device, within_error):
    skip_unserved(max(lengths), dtype)
    qkv, grad = make((sum(lengths), 1, 16), dtype, device)
    rng = state(device, len(lengths), p)
    layout = SetLayout.from_lengths(torch.tensor(lengths, device=device))
    assert layout.tile_starts is not None and layout.owners is not None
    check(
        within_error,
        lambda *t: kernels.set_attention(*t, layout=layout, dropout_p=p, rng=rng),
        lambda *t: reference.packed_attention(*t, layout=layout, dropout_p=p, rng=rng),
        qkv,
        grad,
    )


@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", [[9, 1, 4, 0, 9], [0, 0], [70, 3]], ids=["ragged", "empty", "long"])
def test_padding_is_never_read_and_comes_out_as_zeros(lengths, dtype, p, device, within_error):
    tokens = max(lengths) + 2
    skip_unserved(tokens, dtype)
    qkv, grad = make((len(lengths), tokens, 2, 16), dtype, device)
    counts = torch.tensor(lengths, device=device, dtype=torch.int32)
    padding = torch.arange(tokens, device=device) >= counts[:, None]
    clean = qkv.masked_fill(padding[:, :, None, None, None], 0.0)
    qkv = qkv.masked_fill(padding[:, :, None, None, None], math.nan)
    rng = state(device, len(lengths), p)

    def attend(*t):
        return kernels.set_attention(*t, lengths=counts, dropout_p=p, rng=rng)

    check(
        within_error,
        attend,
        lambda *t: reference.padded_attention(*t, lengths=counts, dropout_p=p, rng=rng),
        clean,
        grad,
    )
    for one, two in zip(run(attend, qkv, grad), run(attend, clean, grad), strict=True):
        assert torch.equal(one, two)
        assert not one[padding].any()


@pytest.mark.parametrize("tokens", [1, 8, 9, 31, 33, 64, 70, 128])
def test_dropped_weights_are_those_of_the_reference(tokens, device):
    """With equal scores and v the identity, the output is the dropped weight matrix itself."""
    sets, heads, p = (3 if tokens < 33 else 2), 2, 0.4
    dtype = torch.float32 if tokens <= 64 else torch.float16
    q = torch.zeros(sets, tokens, heads, tokens, device=device, dtype=dtype)
    v = torch.eye(tokens, device=device, dtype=dtype)[None, :, None].expand(sets, tokens, heads, tokens)
    rng = state(device, sets, p, layer=3)
    out = kernels.set_attention(q, q, v, dropout_p=p, rng=rng, attention_backend="triton").float()
    drawn = reference.attention_dropout(rng, heads=heads, tokens=tokens, p=p, dtype=torch.float32)
    assert torch.equal(out.transpose(1, 2) != 0, drawn != 0)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(out.transpose(1, 2) * tokens, drawn, rtol=tolerance, atol=tolerance)


def test_dropout_knows_nothing_of_the_packing(device):
    lengths = [9, 2, 7, 9]
    qkv, _ = make((sum(lengths), 2, 16), torch.float32, device)
    rng = state(device, 4, 0.5)
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


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_one_projection_gives_the_same_bits_and_its_gradient_in_one_piece(packed, device, monkeypatch):
    lengths = torch.tensor([3, 0, 5], device=device)
    layout = SetLayout.from_lengths(lengths)
    qkv, grad = make((8, 2, 16) if packed else (3, 5, 2, 16), torch.float32, device)
    given = {"dropout_p": 0.3, "rng": state(device, 3, 0.3)}
    given |= {"layout": layout} if packed else {"lengths": lengths}
    separate = run(lambda *t: kernels.set_attention(*t, **given), qkv, grad)
    compiled = torch.compile(lambda x: set_attention_qkv(x, **given), fullgraph=True, backend="aot_eager")
    for function in (lambda x: set_attention_qkv(x, **given), compiled):
        leaf = qkv.clone().requires_grad_()
        out = function(leaf)
        out.backward(grad)
        assert torch.equal(out, separate[0])
        assert torch.equal(leaf.grad, torch.stack(separate[1:], dim=-3))
    drawn = (given["rng"].state, given["rng"].rows)
    where = (None, *layout.tiles(), layout.offsets) if packed else (lengths, None, None, None)
    arguments = (qkv.clone().requires_grad_(), *where, *drawn, 5, 0.3, 1)
    torch.library.opcheck(fused._forward_qkv, arguments)
    with pytest.raises(ValueError, match="qkv must be"):
        set_attention_qkv(qkv.flatten(0, -2))


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


def op_arguments(device, *, packed, p, dtype=torch.float32):
    lengths = torch.tensor([3, 1, 5], device=device)
    rng = state(device, 3, p)
    drawn = (None, None, 0) if rng is None else (rng.state, rng.rows, rng.layer)
    if packed:
        layout = SetLayout.from_lengths(lengths)
        qkv, _ = make((9, 2, 16), dtype, device)
        where = (None, *layout.tiles(), layout.offsets)
    else:
        qkv, _ = make((3, 5, 2, 16), dtype, device)
        where = (lengths, None, None, None)
    tensors = [t.detach().requires_grad_() for t in qkv.unbind(-3)]
    return (*tensors, *where, *drawn[:2], 5, p, drawn[2])


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("p", [0.0, 0.3], ids=["no dropout", "dropout"])
def test_opcheck(packed, p, device):
    arguments = op_arguments(device, packed=packed, p=p)
    torch.library.opcheck(fused._forward, arguments)
    grad = torch.randn_like(arguments[0])
    torch.library.opcheck(
        fused._backward, (grad, *(a.detach() if i < 3 else a for i, a in enumerate(arguments)))
    )


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_compiles_without_a_graph_break(packed, device):
    qkv, grad = make((9, 2, 16) if packed else (3, 5, 2, 16), torch.float32, device)
    lengths = torch.tensor([3, 1, 5], device=device)
    rng = state(device, 3, 0.3)
    where = {"layout": SetLayout.from_lengths(lengths)} if packed else {"lengths": lengths}

    def attend(q, k, v):
        return kernels.set_attention(q * 1.0, k, v, dropout_p=0.3, rng=rng, **where)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for one, two in zip(run(compiled, qkv, grad), run(attend, qkv, grad), strict=True):
        assert torch.equal(one, two)


def test_auto_takes_the_kernels_and_leaves_what_they_do_not_serve(device, monkeypatch):
    calls = []
    monkeypatch.setattr(fused, "padded_attention", lambda q, *a, **k: calls.append(q.shape) or q)
    served = torch.zeros(1, 128, 1, 128, device=device, dtype=torch.float16)
    assert kernels.set_attention(served, served, served).shape == served.shape
    for shape, dtype in (
        ((1, 65, 1, 16), torch.float32),
        ((1, 129, 1, 16), torch.float16),
        ((1, 2, 1, 129), torch.float32),
        ((1, 2, 1, 16), torch.float64),
    ):
        q = torch.zeros(shape, dtype=dtype, device=device)
        kernels.set_attention(q, q, q)
        with pytest.raises(
            ValueError, match=r"'triton' (serves sets of up to (64|128)|cannot serve this call: its kernels)"
        ):
            kernels.set_attention(q, q, q, attention_backend="triton")
    assert calls == [served.shape]


@needs_cuda
def test_inputs_on_two_devices_are_refused(device):
    q = torch.zeros(2, 3, 1, 16, device=device)
    with pytest.raises(ValueError, match="lengths must be on the device of q"):
        kernels.set_attention(q, q, q, lengths=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="layout must be on the device of q"):
        kernels.set_attention(q[0], q[0], q[0], layout=SetLayout.from_lengths(torch.tensor([1, 2])))
    with pytest.raises(ValueError, match="rng must be on the device of q"):
        rng = RandomState.create(0, rows=torch.arange(2))
        kernels.set_attention(q, q, q, dropout_p=0.1, rng=rng)


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


@needs_cuda
def test_a_captured_graph_draws_anew_at_every_step(device):
    """Forward and backward without synchronisation; the step tensor alone decides what is dropped."""
    qkv, grad = make((40, 9, 2, 32), torch.bfloat16, device)
    lengths = torch.full((40,), 7, device=device)
    rng = state(device, 40, 0.3)

    def step():
        return run(lambda *t: kernels.set_attention(*t, lengths=lengths, dropout_p=0.3, rng=rng), qkv, grad)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    seen = []
    for number in (5, 6):
        rng.state[1] = number
        graph.replay()
        for one, two in zip(captured, step(), strict=True):
            assert torch.equal(one, two)
        seen.append(captured[0].clone())
    assert not torch.equal(*seen)


@needs_cuda
def test_nothing_synchronises(device):
    qkv, grad = make((40, 9, 2, 32), torch.bfloat16, device)
    lengths = torch.full((40,), 7, device=device)
    rng = state(device, 40, 0.3)
    layout = SetLayout.from_lengths(lengths)
    packed, packed_grad = make((280, 2, 32), torch.bfloat16, device)
    calls = [
        (lambda *t: kernels.set_attention(*t, lengths=lengths, dropout_p=0.3, rng=rng), qkv, grad),
        (lambda *t: kernels.set_attention(*t, layout=layout, dropout_p=0.3, rng=rng), packed, packed_grad),
    ]
    for call in calls:
        run(*call)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for call in calls:
            run(*call)
    finally:
        torch.cuda.set_sync_debug_mode("default")
