"""How fast is the sparse-output contrastive loss, beside what else computes it?

On CUDA, in bf16: device time by graph replay over rotating inputs, forward and backward, ours and every peer that can
be imported, each checked against fp64 first; peers that are absent or refuse are listed with their reason. On a CPU, in
fp32: the reference against the plain formula, at a small shape.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.utils.checkpoint
from torch.nn import functional as F

from scalefast import kernels

CUDA = torch.cuda.is_available()
# queries, keys, feature: SCALE's own, a wider one, and one that nobody can hold densely
SHAPES = [(2048, 8192, 128), (4096, 8192, 256), (65536, 65536, 256)] if CUDA else [(512, 2048, 64)]
DTYPE = torch.bfloat16 if CUDA else torch.float32
DEVICE = "cuda" if CUDA else "cpu"
TEMPERATURE = 0.2
DENSE_LIMIT = 1 << 28
"""Logits from which peers that hold all of them are left out: 1 GB in fp32, and several times that in passing."""


def make(shape, seed=0):
    """Unit queries and keys, a positive for each query: its own number where there are as many of both."""
    m, n, d = shape
    g = torch.Generator(DEVICE).manual_seed(seed)
    q, k = (F.normalize(torch.randn(rows, d, generator=g, device=DEVICE), dim=1).to(DTYPE) for rows in (m, n))
    positives = (
        torch.arange(n, device=DEVICE) if m == n else torch.randperm(n, generator=g, device=DEVICE)[:m]
    )
    return q.requires_grad_(), k.requires_grad_(), positives


def formula(q, k, positives):
    return F.cross_entropy((q @ k.T).float() / TEMPERATURE, positives)


def ours(q, k, positives):
    return kernels.sparse_infonce(q, k, positives, temperature=TEMPERATURE).loss


def chunked(q, k, positives):
    """The plain formula on 2,048 rows at a time, each computed again in the backward pass."""
    parts = zip(q.split(2048), positives.split(2048), strict=True)
    checkpoint = torch.utils.checkpoint.checkpoint
    return sum(checkpoint(_sum, part, k, own, use_reentrant=False) for part, own in parts) / len(q)


def _sum(q, k, positives):
    return F.cross_entropy((q @ k.T).float() / TEMPERATURE, positives, reduction="sum")


def peers(shape, timing):
    """Name -> a function of nothing that makes the peer; making fails where the peer is absent."""
    m, n, _ = shape

    def dense(function):
        if m * n > DENSE_LIMIT:
            raise MemoryError(f"holds {m} x {n} logits")
        return function

    def cut():
        function = importlib.import_module("cut_cross_entropy").linear_cross_entropy
        # No temperature there: it goes into the queries, in bf16 as they are; nothing may be filtered.
        return lambda q, k, p: function(q / TEMPERATURE, k, p, filter_eps=None)

    def liger():
        fused = importlib.import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss()
        return lambda q, k, p: fused(k, q / TEMPERATURE, p)

    def inf_cl():
        function = importlib.import_module("inf_cl").cal_flash_loss
        if m != n:
            raise ValueError("wants as many queries as keys")
        return lambda q, k, p: function(q, k, p, torch.tensor(1 / TEMPERATURE, device=DEVICE))

    def linear():
        function = F.linear_cross_entropy  # in torch from some release on
        return lambda q, k, p: function(q / TEMPERATURE, k, p)

    return {
        "formula": lambda: dense(formula),
        "torch.compile of the formula": lambda: timing.compiled(dense(formula)),
        "chunked product": lambda: chunked,
        "torch linear_cross_entropy": linear,
        "cut-cross-entropy": cut,
        "Liger": liger,
        "Inf-CL": inf_cl,
    }


def both(function):
    return lambda q, k, positives: torch.autograd.grad(function(q, k, positives), (q, k))


def check(function, shape):
    """Refuse to time a wrong result: the library's error rule, in fp64, on at most 4,096 rows."""
    m, n, d = shape
    q, k, positives = make((min(4096, m), 4096 if m == n else min(8192, n), d), seed=9)
    results = []
    for loss_of, dtype in ((function, DTYPE), (formula64, torch.float64), (formula, DTYPE)):
        leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k)]
        loss = loss_of(*leaves, positives)
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    share = 1e-3 if torch.bfloat16 == DTYPE else 1e-6
    for got, truth, eager in zip(*results, strict=True):
        allowed = 2 * (eager.double() - truth).abs().max() + share * truth.abs().max()
        assert (got.double() - truth).abs().max() <= allowed, "wrong by the library's error rule"


def formula64(q, k, positives):
    return F.cross_entropy(q @ k.T / TEMPERATURE, positives)


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_device_time_beside_peers(shape, benchmark, timing):
    m, n, d = shape
    large = m * n > DENSE_LIMIT
    # Enough different inputs to overflow the cache of 50 MB.
    rotated = [make(shape, seed=i) for i in range(max(2, int(100e6 / (2 * d * (m + n)))))]

    check(ours, shape)
    info = benchmark.extra_info
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both(ours)(*rotated[0])
    info["memory_mb"] = (torch.cuda.max_memory_allocated() - before) / 1e6
    timing.time_beside_peers(
        info,
        {"ours": ours},
        peers(shape, timing),
        check=lambda function: check(function, shape),
        inputs_to_rotate=rotated,
        wrap=both,
        repeats=10 if large else 50,
    )
    flops = 8.0 * m * n * d
    info["tflops"] = flops / info["ours"]["p50_us"] / 1e6
    info["floor_us"] = flops / timing.matmul_rate() * 1e6
    info["ours over the floor"] = info["ours"]["p50_us"] / info["floor_us"]
    benchmark.pedantic(timing.finished(both(ours), *rotated[0]), rounds=5 if large else 50, warmup_rounds=2)


def symmetric_formula(q, k, positives):
    logits = (F.normalize(q, dim=1) @ F.normalize(k, dim=1).T).float() / TEMPERATURE
    return (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, torch.argsort(positives))) / 2


def one_pass(q, k, positives):
    return kernels.sparse_infonce(
        q, k, positives, temperature=TEMPERATURE, normalize=True, symmetric=True
    ).loss


def two_passes(q, k, positives):
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    return kernels.sparse_infonce(q, k, positives, temperature=TEMPERATURE, symmetric=True).loss


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
@pytest.mark.parametrize("shape", [(512, 512, 128), (4096, 4096, 256), (65536, 65536, 256)], ids=str)
def test_symmetric_in_one_pass(shape, benchmark, timing):
    """SCALE's SET loss and larger ones, beside two calls of the one-directional kernels and the formula."""
    m, n, d = shape
    rotated = [make(shape, seed=i) for i in range(max(2, int(100e6 / (2 * d * (m + n)))))]

    def dense():
        if m * n > DENSE_LIMIT:
            raise MemoryError(f"holds {m} x {n} logits")
        return symmetric_formula

    def compare(function):
        q, k, positives = make((min(m, 4096), min(m, 4096), d), seed=9)
        found = []
        for loss_of, dtype in ((function, DTYPE), (symmetric_formula, torch.float64)):
            leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k)]
            loss = loss_of(*leaves, positives)
            found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
        for got, truth in zip(*found, strict=True):
            assert (got.double() - truth).abs().max() <= 2e-2 * truth.abs().max()

    compare(one_pass)
    info = benchmark.extra_info
    repeats = 10 if m * n > DENSE_LIMIT else 50
    timing.time_beside_peers(
        info,
        {"ours": one_pass},
        {
            "two passes": lambda: two_passes,
            "formula": dense,
            "torch.compile": lambda: timing.compiled(dense()),
        },
        check=compare,
        inputs_to_rotate=rotated,
        wrap=both,
        repeats=repeats,
    )
    info["tflops"] = 10.0 * m * n * d / info["ours"]["p50_us"] / 1e6
    benchmark.pedantic(timing.finished(both(one_pass), *rotated[0]), rounds=5, warmup_rounds=2)


@pytest.mark.skipif(CUDA, reason="on CUDA the kernels are timed")
@pytest.mark.parametrize("name", ["reference", "formula", "chunked product"])
def test_on_a_cpu(name, benchmark):
    function = {"reference": ours, "formula": formula, "chunked product": chunked}[name]
    check(function, SHAPES[0])
    inputs = make(SHAPES[0])
    benchmark.pedantic(lambda: both(function)(*inputs), rounds=10, warmup_rounds=2)
