"""The symmetric loss in one pass: against dense fp64 formulas, and where it gives way to two calls."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels.ops.sparse_infonce import launches, triton_symmetric
from scalefast.kernels.ops.sparse_infonce import triton as fused

CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs CUDA")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=needs_cuda)]  # the interpreter's bf16 is wrong


def make(m, d, dtype, device, seed=0):
    """Keys near their queries, as a loss has them after some steps; a permutation; a weight for every row."""
    g = torch.Generator().manual_seed(seed)
    q, noise = (torch.randn(m, d, generator=g) for _ in range(2))
    positives = torch.randperm(m, generator=g)
    k = torch.empty_like(q)
    k[positives] = q + noise
    weight = torch.randn(m, generator=g)
    return q.to(device, dtype), k.to(device, dtype), positives.to(device), weight.to(device)


def dense(q, k, positives, t):
    """Row losses, whether both directions find each other, the positive's logit."""
    logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / t
    own = logits.gather(1, positives[:, None]).squeeze(1)
    columns = torch.logsumexp(logits, 0)[positives]
    hits = (own >= logits.amax(1)) & (own >= logits.amax(0)[positives])
    return (torch.logsumexp(logits, 1) + columns) / 2 - own, hits, own


def check_case(m, d, dtype, device, within_error, *, t=0.2):
    assert fused.why_two_passes(m, d, dtype, temperature=t) is None
    q, k, positives, weight = make(m, d, dtype, device)
    results = []
    for cast, is_ours in ((dtype, True), (dtype, False), (torch.float64, False)):
        leaves = [x.to(cast).detach().clone().requires_grad_() for x in (q, k)]
        if is_ours:
            out = kernels.sparse_infonce(*leaves, positives, temperature=t, normalize=True, symmetric=True)
            rows = out.rows
        else:
            rows, hits, own = dense(*leaves, positives, t)
        results.append([rows.detach(), *torch.autograd.grad((rows * weight).sum(), leaves)])
    for got, eager, truth in zip(*results, strict=True):
        within_error(got, truth, eager, dtype)
    torch.testing.assert_close(out.loss, out.rows.mean())
    rough = {"rtol": 2e-2, "atol": 5e-2} if CUDA else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(out.positive_logit.double(), own.detach(), **rough)
    if not CUDA:
        assert torch.equal(out.top1, hits)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 1), (33, 6), (64, 64), (67, 33), (131, 16), (20, 200)], ids=str)
def test_rows_and_both_gradients(shape, dtype, tf32, device, within_error):
    check_case(*shape, dtype, device, within_error)


@pytest.mark.parametrize("t", [0.025, 0.07, 1.0, 30.0])
def test_temperatures(t, tf32, device, within_error):
    check_case(67, 9, torch.float32, device, within_error, t=t)


@pytest.mark.parametrize("processors", [1, 3, 1000])
def test_the_split_of_the_columns_changes_rounding_only(processors, tf32, device, within_error, monkeypatch):
    monkeypatch.setattr(launches, "_processors", lambda device: processors)
    check_case(131, 16, torch.float32, device, within_error)


def test_strips_of_rows(tf32, device, within_error, monkeypatch):
    monkeypatch.setattr(triton_symmetric, "COLUMN_SUMS", 1)  # a strip a block of rows
    check_case(150, 16, torch.float32, device, within_error)


def test_opposite_rows_at_the_lowest_temperature(tf32, device):
    """Sums of e as small as they get: every row but its own partner points the other way."""
    q = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], device=device).requires_grad_()
    positives = torch.tensor([1, 0], device=device)  # each with its opposite
    out = kernels.sparse_infonce(q, q.detach(), positives, temperature=0.025, normalize=True, symmetric=True)
    torch.testing.assert_close(out.rows, torch.full((2,), 80.0, device=device))
    out.loss.backward()
    assert torch.isfinite(q.grad).all() and not out.top1.any()


def test_same_bits_twice(tf32, device):
    q, k, positives, weight = make(131, 33, torch.float32, device)
    runs = []
    for _ in range(2):
        leaves = [q.clone().requires_grad_(), k.clone().requires_grad_()]
        out = kernels.sparse_infonce(*leaves, positives, temperature=0.1, normalize=True, symmetric=True)
        runs.append(
            [out.rows, out.top1, out.positive_logit, *torch.autograd.grad((out.rows * weight).sum(), leaves)]
        )
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


def test_equal_rows_tie_and_a_tie_is_a_hit(tf32, device):
    q = torch.zeros(70, 8, device=device)
    q[:, 0] = 2.0  # all the same
    out = kernels.sparse_infonce(
        q, q, torch.arange(70, device=device), temperature=0.2, normalize=True, symmetric=True
    )
    assert out.top1.all()
    torch.testing.assert_close(out.loss, torch.tensor(70.0, device=device).log())


def test_only_what_needs_a_gradient_is_computed(tf32, device, monkeypatch):
    q, k, positives, _ = make(20, 4, torch.float32, device)
    asked, backward = [], triton_symmetric._backward
    monkeypatch.setattr(
        triton_symmetric, "_backward", lambda *given: asked.append(given[-2:]) or backward(*given)
    )
    both = [q.clone().requires_grad_(), k.clone().requires_grad_()]
    options = {"temperature": 0.2, "normalize": True, "symmetric": True}
    kernels.sparse_infonce(*both, positives, **options).loss.backward()
    for frozen in (0, 1):
        leaves = [q.clone(), k.clone()]
        leaves[1 - frozen].requires_grad_()
        kernels.sparse_infonce(*leaves, positives, **options).loss.backward()
        assert torch.equal(leaves[1 - frozen].grad, both[1 - frozen].grad)
    assert asked == [(True, True), (False, True), (True, False)]


def test_opcheck_and_compile(tf32, device):
    torch.compiler.reset()
    q, k, positives, weight = make(20, 5, torch.float32, device)
    t = torch.tensor(0.2, device=device)
    leaves = [F.normalize(x, dim=1).requires_grad_() for x in (q, k)]
    torch.library.opcheck(triton_symmetric._forward, (*leaves, t, positives))
    with torch.no_grad():
        *_, base = triton_symmetric._forward(*leaves, t, positives)
    saved = (weight, *(x.detach() for x in leaves), t, positives, base)
    torch.library.opcheck(triton_symmetric._backward, (*saved, True, False))

    def step(a, b):
        return kernels.sparse_infonce(a, b, positives, temperature=0.2, normalize=True, symmetric=True).loss

    runs = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        inputs = [q.clone().requires_grad_(), k.clone().requires_grad_()]
        loss = function(*inputs)
        runs.append([loss, *torch.autograd.grad(loss, inputs)])
    for got, want in zip(*runs, strict=True):
        assert torch.equal(got, want)


def test_what_it_does_not_serve_takes_two_passes(tf32, device, monkeypatch):
    calls = []
    monkeypatch.setattr(fused, "symmetric_rows", lambda *given, **options: calls.append(given))
    q, k, positives, _ = make(6, 5, torch.float32, device)
    groups = torch.arange(6, device=device)
    others = (
        ({"temperature": 0.2}, q, k, positives),  # not normalised here
        ({"temperature": 0.02, "normalize": True}, q, k, positives),
        ({"temperature": torch.tensor(0.2, device=device), "normalize": True}, q, k, positives),
        (
            {"temperature": 0.2, "normalize": True, "query_groups": groups, "key_groups": groups},
            q,
            k,
            positives,
        ),
        ({"temperature": 0.2, "normalize": True}, q.half(), k.half(), positives),
        ({"temperature": 0.2, "normalize": True}, q[:1], k[:1], positives[:1] * 0),
        ({"temperature": 0.2, "normalize": True}, q.repeat(1, 60), k.repeat(1, 60), positives),
    )
    for options, a, b, own in others:
        assert torch.isfinite(kernels.sparse_infonce(a, b, own, symmetric=True, **options).loss)
    torch.set_float32_matmul_precision("highest")  # the fixture puts it back
    kernels.sparse_infonce(q, k, positives, temperature=0.2, normalize=True, symmetric=True)
    assert not calls


@needs_cuda
@pytest.mark.parametrize("shape", [(512, 128), (4096, 256), (1001, 200)], ids=str)
def test_real_shapes(shape, device, within_error):
    check_case(*shape, torch.bfloat16, device, within_error)


@needs_cuda
def test_captured_in_a_graph(device):
    q, k, positives, weight = make(300, 64, torch.bfloat16, device)
    q.requires_grad_(), k.requires_grad_()

    def step():
        out = kernels.sparse_infonce(q, k, positives, temperature=0.2, normalize=True, symmetric=True)
        return out.loss, *torch.autograd.grad((out.rows * weight).sum(), (q, k))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        want = [x.clone() for x in step()]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = step()
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)
