"""How fast is attention inside small sets, beside what else computes it?

On CUDA, in bf16: device time by graph replay over rotating inputs, ours and every peer that can be imported, each
checked against fp64 first; peers that are absent or refuse are listed with their reason. On a CPU, in fp32: the
reference against the plain formula, at a small shape.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels import RandomState
from scalefast.kernels.ops.set_attention import backends

CUDA = torch.cuda.is_available()
# sets, tokens (CLS included), heads, head dimension
SHAPES = [(1024, 9, 8, 32), (512, 17, 8, 64)] if CUDA else [(64, 9, 8, 32)]
DTYPE = torch.bfloat16 if CUDA else torch.float32
DEVICE = "cuda" if CUDA else "cpu"


def make(shape, seed=0):
    """q, k, v as slices of one projection, as the model has them, and the gradient of the output."""
    sets, tokens, heads, dim = shape
    g = torch.Generator(DEVICE).manual_seed(seed)
    qkv = torch.randn(sets, tokens, 3, heads, dim, generator=g, device=DEVICE).to(DTYPE)
    grad = torch.randn(shape, generator=g, device=DEVICE).to(DTYPE)
    return *(t.detach().requires_grad_() for t in qkv.unbind(2)), grad


def formula(q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return (torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v).transpose(1, 2)


def ours(q, k, v):
    return kernels.set_attention(q, k, v)


def with_dropout(shape):
    rng = RandomState.create(0, rows=torch.arange(shape[0], device=DEVICE))
    return lambda q, k, v: kernels.set_attention(q, k, v, dropout_p=0.1, rng=rng)


def peers(shape, timing):
    """Name -> a function of nothing that makes the peer; making fails where the peer is absent."""
    sets, tokens, heads, dim = shape
    offsets = torch.arange(0, sets * tokens + 1, tokens, device=DEVICE, dtype=torch.int32)

    def flat(function):
        def call(q, k, v):
            out = function(*(t.flatten(0, 1) for t in (q, k, v)))
            out = out[0] if isinstance(out, tuple) else out
            return out.view(sets, tokens, heads, dim)

        return call

    def flash():
        function = backends._flash_attn_function()
        given = {
            "cu_seqlens_q": offsets,
            "cu_seqlens_k": offsets,
            "max_seqlen_q": tokens,
            "max_seqlen_k": tokens,
        }
        return flat(lambda q, k, v: function(q, k, v, **given))

    def varlen():
        function = importlib.import_module("torch.nn.attention.varlen").varlen_attn
        return flat(lambda q, k, v: function(q, k, v, offsets, offsets, tokens, tokens))

    def xformers():
        attention, mask = backends._xformers_functions()
        bias = mask.from_seqlens([tokens] * sets)
        return flat(lambda q, k, v: attention(q[None], k[None], v[None], attn_bias=bias)[0])

    def flex():
        module = importlib.import_module("torch.nn.attention.flex_attention")
        function = timing.compiled(module.flex_attention)
        return lambda q, k, v: function(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)

    def sdpa(q, k, v):
        return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)

    return {
        "formula": lambda: formula,
        "torch.compile of the formula": lambda: timing.compiled(formula),
        "SDPA": lambda: sdpa,
        "FlexAttention": flex,
        "flash-attn varlen": flash,
        "xformers block-diagonal": xformers,
        "torch varlen": varlen,
    }


def forward(function):
    def run(q, k, v, grad):
        with torch.no_grad():
            return function(q, k, v)

    return run


def both(function):
    return lambda q, k, v, grad: torch.autograd.grad(function(q, k, v), (q, k, v), grad)


def check(function, shape):
    """Refuse to time a wrong result: the library's error rule, against the formula in fp64."""
    q, k, v, grad = make(shape, seed=9)
    results = []
    for attend, dtype in ((function, DTYPE), (formula, torch.float64), (formula, DTYPE)):
        t = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
        out = attend(*t)
        results.append([out.detach(), *torch.autograd.grad(out, t, grad.to(dtype))])
    share = {torch.bfloat16: 1e-3}.get(DTYPE, 1e-6)
    for got, truth, eager in zip(*results, strict=True):
        allowed = 2 * (eager.double() - truth).abs().max() + share * truth.abs().max()
        assert (got.double() - truth).abs().max() <= allowed


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
@pytest.mark.parametrize("direction", ["forward", "forward and backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_device_time_beside_peers(shape, direction, benchmark, timing):
    wrap, tensors = (forward, 4) if direction == "forward" else (both, 11)
    # Enough different inputs to overflow the cache of 50 MB.
    rotated = [make(shape, seed=i) for i in range(max(2, int(100e6 / (8 * make(shape)[0].numel()))))]

    check(ours, shape)
    info = benchmark.extra_info
    timing.time_beside_peers(
        info,
        {"ours": ours, "ours with dropout 0.1": with_dropout(shape)},
        peers(shape, timing),
        check=lambda function: check(function, shape),
        inputs_to_rotate=rotated,
        wrap=wrap,
    )
    info["floor_us"] = tensors * 2 * rotated[0][0].numel() / timing.copy_bandwidth() * 1e6
    info["ours over the floor"] = info["ours"]["p50_us"] / info["floor_us"]
    benchmark.pedantic(timing.finished(wrap(ours), *rotated[0]), rounds=50, warmup_rounds=5)


@pytest.mark.skipif(CUDA, reason="on CUDA the kernels are timed")
@pytest.mark.parametrize("name", ["reference", "formula"])
def test_on_a_cpu(name, benchmark):
    def reference(q, k, v):
        return kernels.set_attention(q, k, v, attention_backend="reference")

    function = {"reference": reference, "formula": formula}[name]
    check(function, SHAPES[0])
    inputs = make(SHAPES[0])
    benchmark.pedantic(lambda: both(function)(*inputs), rounds=20, warmup_rounds=3)
