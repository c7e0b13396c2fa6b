"""The contrastive loss's kernels: through torch's machinery: gradients asked for, compile, capture, ranks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels.ops.sparse_infonce import triton as fused
from scalefast.kernels.ops.sparse_infonce import unit_rows

CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs CUDA")


def test_only_what_needs_a_gradient_is_computed(form, device, monkeypatch, cases):
    q, k, positives, _, _ = cases.make(20, 30, 4, torch.float32, device)
    asked = []
    backward = fused._backward

    def spy(*arguments):
        asked.append(arguments[-3:])
        return backward(*arguments)

    monkeypatch.setattr(fused, "_backward", spy)
    both = [q.clone().requires_grad_(), k.clone().requires_grad_()]
    kernels.sparse_infonce(*both, positives, temperature=0.2).loss.backward()
    for frozen in (0, 1):
        leaves = [q.clone(), k.clone()]
        leaves[1 - frozen].requires_grad_()
        kernels.sparse_infonce(*leaves, positives, temperature=0.2).loss.backward()
        assert torch.equal(leaves[1 - frozen].grad, both[1 - frozen].grad)
    assert asked == [(True, True, False), (False, True, False), (True, False, False)]


def test_inputs_that_are_not_contiguous(form, device, cases):
    q, k, positives, groups, weight = cases.make(20, 30, 6, torch.float32, device)
    wide = [torch.cat([x, x], 1)[:, ::2].requires_grad_() for x in (q, k)]
    plain = [x.detach().contiguous().requires_grad_() for x in wide]
    extra = {"query_groups": groups[0].repeat_interleave(2)[::2], "key_groups": groups[1].to(torch.int32)}
    results = []
    for leaves in (wide, plain):
        p = positives.repeat_interleave(2)[::2]
        out = kernels.sparse_infonce(*leaves, p, temperature=0.2, **extra)
        results.append([out.rows, *cases.gradients(out.rows, weight, leaves)])
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


def test_autocast_around_it_changes_nothing(form, device, cases):
    q, k, positives, _, _ = cases.make(20, 30, 9, torch.float32, device)

    def run(forward, backward):
        a, b = (x.clone().requires_grad_() for x in (q, k))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=forward):
            loss = kernels.sparse_infonce(a, b, positives, temperature=0.2, normalize=True).loss
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=backward):
            loss.backward()
        return loss.detach(), a.grad, b.grad

    plain = run(False, False)
    for around in ((True, False), (True, True)):
        for got, want in zip(run(*around), plain, strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_opcheck(groups, form, device, cases):
    q, k, positives, ids, weight = cases.make(7, 13, 5, torch.float32, device)
    t = torch.tensor(0.3, device=device)
    ids = ids if groups else (None, None)
    is_fused = form == "fused"
    leaves = [x.clone().requires_grad_() for x in (q, k, t)]
    torch.library.opcheck(fused._forward, (*leaves, positives, *ids, groups, is_fused, True))
    with torch.no_grad():
        *_, base, count, direction = fused._forward(q, k, t, positives, *ids, groups, is_fused, True)
    saved = (weight, q, k, t, positives, *ids, base, count, direction, groups, is_fused)
    torch.library.opcheck(fused._backward, (*saved, True, True, True))
    torch.library.opcheck(fused._backward, (*saved, False, True, False))


def test_opcheck_of_unit_rows(device):
    x = torch.randn(5, 7, device=device)
    torch.library.opcheck(unit_rows._unit, (x.clone().requires_grad_(),))
    torch.library.opcheck(unit_rows._unit_backward, (x, x, torch.ones(5, device=device)))


@pytest.mark.parametrize("grouped", [None, "exclude", "positive"])
def test_compiled_as_one_graph(grouped, form, device, cases):
    torch.compiler.reset()
    q, k, positives, groups, _ = cases.make(20, 30, 9, torch.float32, device)
    extra = {"query_groups": groups[0], "key_groups": groups[1], "same_group": grouped} if grouped else {}

    def step(a, b, t):
        out = kernels.sparse_infonce(a, b, positives, temperature=t, normalize=True, **extra)
        return out.loss, out.top1, out.positive_logit

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    runs = []
    for function in (step, compiled):
        leaves = [x.clone().requires_grad_() for x in (q, k, torch.tensor(0.2, device=device))]
        loss, *rest = function(*leaves)
        runs.append([loss, *rest, *torch.autograd.grad(loss, leaves)])
    for got, want in zip(*runs, strict=True):
        assert torch.equal(got, want)


def test_symmetric_compiles_too(tf32, device, cases):
    torch.compiler.reset()
    q, k, _, _, _ = cases.make(17, 17, 5, torch.float32, device)
    positives = torch.randperm(17, device=device)

    def step(a, b):
        return kernels.sparse_infonce(a, b, positives, temperature=0.2, symmetric=True).loss

    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(q, k), step(q, k))


def test_the_plan_says_what_and_why():
    assert fused.plan(4096, 8192, 256, torch.bfloat16).form == "fused"
    wide = fused.plan(4096, 8192, 257, torch.bfloat16)
    assert wide.form == "chunked" and "257" in wide.reason
    assert fused.plan(4096, 8192, 64, torch.float32) == (
        "chunked",
        fused.plan(1, 1, 64, torch.float32).reason,
    )


def test_bad_input_is_named(device):
    q, k, p = (x.to(device) for x in (torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 4])))
    with pytest.raises(ValueError, match=r"keys must be \[N, 4\]"):
        kernels.sparse_infonce(q, k[:, :2], p, temperature=0.2)
    with pytest.raises(ValueError, match="keys must be"):
        kernels.sparse_infonce(q, k.half(), p, temperature=0.2)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        kernels.sparse_infonce(q, k, p, temperature=0.0)


def test_out_of_range_is_found_on_request(device, monkeypatch):
    monkeypatch.setenv("SCALEFAST_CHECKS", "1")
    q, k = torch.randn(3, 4, device=device), torch.randn(5, 4, device=device)
    with pytest.raises(ValueError, match=r"positives must be in \[-1, 5\); got 0 to 5"):
        kernels.sparse_infonce(q, k, torch.tensor([0, 1, 5], device=device), temperature=0.2)


RANK = """
import sys, torch, torch.distributed as dist
from scalefast import kernels
from scalefast._collectives import gather_rows, global_mean, global_offset
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_float32_matmul_precision("high")
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
mine = slice(0, 9) if rank == 0 else slice(9, 23)
q, k = (given[name][mine].clone().requires_grad_() for name in ("q", "k"))
positives = given["positives"][mine]
out = kernels.sparse_infonce(q, gather_rows(k, None), positives, temperature=0.2)
loss, accuracy = global_mean(out.rows, out.top1, valid=positives >= 0, group=None)
loss.backward()
torch.save({"loss": loss.detach(), "q": q.grad, "k": k.grad}, f"{folder}/left-{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.skipif(CUDA, reason="two processes on the CPU, in the interpreter")
def test_keys_gathered_from_two_ranks(tmp_path, tf32, device, cases):
    q, k, _, _, _ = cases.make(23, 23, 9, torch.float32, device)
    positives = torch.randperm(23, generator=torch.Generator().manual_seed(5))
    positives[::4] = -1
    torch.save({"q": q, "k": k, "positives": positives}, tmp_path / "given.pt")
    command = [sys.executable, "-c", RANK]
    others = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [other.wait(timeout=100) for other in others] == [0, 0]
    q.requires_grad_(), k.requires_grad_()
    loss = kernels.sparse_infonce(q, k, positives, temperature=0.2).loss
    loss.backward()
    left = [torch.load(tmp_path / f"left-{rank}.pt") for rank in range(2)]
    for name, want in (("q", q.grad), ("k", k.grad)):
        got = torch.cat([part[name] for part in left]) / 2  # averaged over ranks, as DDP does
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    assert left[0]["loss"] == left[1]["loss"]
    torch.testing.assert_close(left[0]["loss"], loss.detach())


@needs_cuda
def test_captured_in_a_graph(device, cases):
    q, k, positives, _, _ = cases.make(300, 900, 64, torch.bfloat16, device)
    q.requires_grad_(), k.requires_grad_()
    t = torch.tensor(0.2, device=device, requires_grad=True)

    def step():
        loss = kernels.sparse_infonce(q, k, positives, temperature=t, normalize=True).loss
        fixed = kernels.sparse_infonce(q, k, positives, temperature=0.2, normalize=True).loss
        return loss, *torch.autograd.grad(loss + fixed, (q, k, t))

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


@needs_cuda
@pytest.mark.parametrize("dim", [256, 512])
def test_memory_stays_linear(dim, device):
    q, k = (
        F.normalize(torch.randn(32768, dim, device=device), dim=1).bfloat16().requires_grad_()
        for _ in range(2)
    )
    positives = torch.arange(32768, device=device)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kernels.sparse_infonce(q, k, positives, temperature=0.2).loss.backward()
    assert torch.cuda.max_memory_allocated() - before < 600 << 20  # the logits alone would be 4.3 GB in fp32
