"""Set attention by other libraries: SDPA on the CPU, stand-ins for libraries that need a GPU, honest errors."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import types

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState, SetLayout
from scalefast.kernels.ops.set_attention import backends, reference

PACKING = ["flash-attn", "xformers", "varlen"]
LENGTHS = [[5], [3, 0, 7, 1], [130, 4]]


def make(*shape, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for _ in range(3)]


def run(function, tensors):
    tensors = [t.detach().requires_grad_() for t in tensors]
    out = function(*tensors)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return [out.detach(), *torch.autograd.grad(out, tensors, weight.to(out.dtype))]


def compare(within_error, function, plain, tensors):
    truth, eager = run(plain, [t.double() for t in tensors]), run(plain, tensors)
    for got, one, two in zip(run(function, tensors), truth, eager, strict=True):
        within_error(got, one, two)


def every_form(within_error, backend, lengths):
    """Packed, padded and dense sets by a backend, against the reference, with gradients."""
    counts = torch.tensor(lengths)
    layout = SetLayout.from_lengths(counts)
    sets, longest = len(lengths), max(lengths) + 1
    compare(
        within_error,
        lambda *t: kernels.set_attention(*t, layout=layout, attention_backend=backend),
        lambda *t: reference.packed_attention(*t, layout=layout, dropout_p=0.0, rng=None),
        make(sum(lengths), 2, 8),
    )
    for given in (counts, None):
        compare(
            within_error,
            lambda *t, n=given: kernels.set_attention(*t, lengths=n, attention_backend=backend),
            lambda *t, n=given: reference.padded_attention(*t, lengths=n, dropout_p=0.0, rng=None),
            make(sets, longest, 2, 8),
        )


def one_by_one(q, k, v, offsets):
    """What the other libraries compute of packed tensors, a sequence at a time."""
    parts = [
        reference.padded_attention(*(t[None, a:b] for t in (q, k, v)), lengths=None, dropout_p=0.0, rng=None)[
            0
        ]
        for a, b in itertools.pairwise(offsets)
    ]
    return torch.cat(parts)


def longest_of(offsets):
    return int((offsets[1:] - offsets[:-1]).max())


class FakeFlashAttention:
    """The interface of flash-attn: version 4 returns the log-sum-exp too, and takes sequences by keyword alone."""

    def __init__(self, version):
        self.version = version

    def __call__(self, q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k):
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert max_seqlen_q == max_seqlen_k == longest_of(cu_seqlens_q)
        out = one_by_one(q, k, v, cu_seqlens_q.tolist())
        return (out, None) if self.version == 4 else out


class FakeMask:
    """xformers' BlockDiagonalMask, as far as it is used."""

    def __init__(self, lengths):
        self.lengths = lengths

    @classmethod
    def from_seqlens(cls, lengths):
        assert isinstance(lengths, list) and min(lengths) > 0
        return cls(lengths)


def fake_xformers(q, k, v, *, attn_bias):
    offsets = [sum(attn_bias.lengths[:i]) for i in range(len(attn_bias.lengths) + 1)]
    return one_by_one(q[0], k[0], v[0], offsets)[None]


def fake_varlen(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k):
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert max_q == max_k == longest_of(cu_seq_q)
    return one_by_one(q, k, v, cu_seq_q.tolist())


def module(name, **content):
    made = types.ModuleType(name)
    vars(made).update(content)
    return made


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_sdpa_serves_every_form(lengths, within_error):
    every_form(within_error, "sdpa", lengths)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("backend", ["flash-attn 2", "flash-attn 4", "xformers", "varlen"])
def test_other_libraries_get_what_they_ask_for(backend, lengths, within_error, monkeypatch):
    """Stand-ins on the CPU: that sets are packed, numbered and unpacked rightly does not need a GPU."""
    flash = FakeFlashAttention(int(backend[-1]) if backend.startswith("flash") else 2)
    monkeypatch.setattr(backends, "_flash_attn_function", lambda: flash)
    monkeypatch.setattr(backends, "_xformers_functions", lambda: (fake_xformers, FakeMask))
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module("varlen", varlen_attn=fake_varlen))
    monkeypatch.setattr(backends, "_require_cuda", lambda *_: None)
    every_form(within_error, backend.split()[0], lengths)


def test_flash_attention_4_is_found_without_2(monkeypatch):
    two, four = FakeFlashAttention(2), FakeFlashAttention(4)
    monkeypatch.setitem(sys.modules, "flash_attn", module("flash_attn", flash_attn_varlen_func=two))
    assert backends._flash_attn_function() is two
    monkeypatch.setitem(sys.modules, "flash_attn", module("flash_attn", __path__=[]))
    monkeypatch.setitem(
        sys.modules, "flash_attn.cute", module("flash_attn.cute", flash_attn_varlen_func=four)
    )
    assert backends._flash_attn_function() is four


@pytest.mark.parametrize("form", ["no sets", "no tokens", "all empty", "packed"])
def test_nothing_gives_nothing(form, monkeypatch, within_error):
    monkeypatch.setattr(backends, "_require_cuda", lambda *_: None)
    shape = {"no sets": (0, 3, 2, 8), "no tokens": (2, 0, 2, 8), "all empty": (2, 3, 2, 8)}.get(
        form, (0, 2, 8)
    )
    lengths = torch.zeros(2, dtype=torch.int64) if form in ("all empty", "packed") else None
    for backend in ("sdpa", "varlen"):
        q, k, v = (t.requires_grad_() for t in make(*shape))
        out = kernels.set_attention(q, k, v, lengths=lengths, attention_backend=backend)
        assert out.shape == shape and not out.any()
        for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
            assert gradient.shape == shape and not gradient.any()


def test_sdpa_is_chunked_above_what_cuda_serves(monkeypatch):
    """Chunks are cut on CUDA alone; here the cutting itself is tried, with and without a mask."""
    monkeypatch.setattr(backends, "_GRID_LIMIT", 6)
    monkeypatch.setattr(backends, "_needs_chunks", lambda q: True)
    shapes = []
    whole = backends._sdpa
    monkeypatch.setattr(backends, "_sdpa", lambda q, k, v, m: shapes.append(len(q)) or whole(q, k, v, m))
    q, k, v = make(7, 4, 2, 8)
    for lengths in (None, torch.tensor([4, 0, 1, 2, 3, 4, 1])):
        out = backends.by_sdpa(q, k, v, lengths)
        plain = reference.padded_attention(q, k, v, lengths=lengths, dropout_p=0.0, rng=None)
        torch.testing.assert_close(out, plain)
    assert shapes == [3, 3, 1] * 2


@pytest.mark.parametrize("backend", ["sdpa", *PACKING])
def test_dropout_is_refused_by_all_that_cannot_draw_our_numbers(backend):
    q, k, v = make(2, 3, 1, 8)
    rng = RandomState.create(0, rows=torch.arange(2))
    with pytest.raises(ValueError, match=f"'{backend}' serves no dropout.*dropout_p = 0.1"):
        kernels.set_attention(q, k, v, dropout_p=0.1, rng=rng, attention_backend=backend)


@pytest.mark.parametrize("backend", ["flash-attn", "xformers"])
def test_what_is_not_installed_is_named(backend, monkeypatch):
    for name in ("flash_attn", "flash_attn.cute", "xformers", "xformers.ops"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    q, k, v = make(2, 3, 1, 8)
    with pytest.raises(ImportError, match=f"'{backend}' needs the package {backend}"):
        kernels.set_attention(q, k, v, attention_backend=backend)


def test_a_torch_without_varlen_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    q, k, v = make(2, 3, 1, 8)
    with pytest.raises(ImportError, match=r"needs torch.nn.attention.varlen, which torch .* lacks"):
        kernels.set_attention(q, k, v, attention_backend="varlen")


def test_a_device_or_dtype_that_is_not_served_is_named(monkeypatch):
    monkeypatch.setattr(backends, "_flash_attn_function", lambda: FakeFlashAttention(2))
    monkeypatch.setattr(backends, "_xformers_functions", lambda: (fake_xformers, FakeMask))
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        monkeypatch.setitem(
            sys.modules, "torch.nn.attention.varlen", module("varlen", varlen_attn=fake_varlen)
        )
    q, k, v = make(2, 3, 1, 8, dtype=torch.bfloat16)
    for backend in PACKING:
        with pytest.raises(ValueError, match=f"'{backend}' serves CUDA tensors.*device.*cpu"):
            kernels.set_attention(q, k, v, attention_backend=backend)


def test_triton_on_a_cpu_says_why_not(monkeypatch):
    monkeypatch.setenv("SCALEFAST_BACKEND", "reference")
    q, k, v = make(2, 3, 1, 8)
    with pytest.raises(ValueError, match="'triton' cannot serve this call: SCALEFAST_BACKEND=reference"):
        kernels.set_attention(q, k, v, attention_backend="triton")
    monkeypatch.delenv("SCALEFAST_BACKEND")
    with pytest.raises(ValueError, match=r"'triton' cannot serve this call: .*(CPU|not installed)"):
        kernels.set_attention(q, k, v, attention_backend="triton")
