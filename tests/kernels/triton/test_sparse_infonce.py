"""The contrastive loss's kernels: against dense fp64 formulas, on awkward shapes, through torch's machinery."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels.ops.sparse_infonce import chunked, launches, unit_rows
from scalefast.kernels.ops.sparse_infonce import triton as fused

CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs CUDA")
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if CUDA else [])
NAMES = ("queries", "keys", "temperature")


@pytest.fixture(params=["fused", "chunked"])
def form(request):
    """fp32 is chunked unless TF32 is allowed; the interpreter computes both in fp32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if request.param == "fused" else "highest")
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def make(m, n, d, dtype, device, seed=0):
    g = torch.Generator().manual_seed(seed)
    # Logits of a few units, as a loss has: the error of a probability is that of its logit.
    q, k = ((torch.randn(rows, d, generator=g) * d**-0.25).to(device, dtype) for rows in (m, n))
    positives = torch.randint(0, n, (m,), generator=g)
    if m > 2:
        positives[:: max(2, m // 3)] = -1
    groups = [torch.randint(-1, 4, (rows,), generator=g).to(device) for rows in (m, n)]
    weight = torch.randn(m, generator=g).to(device)
    return q, k, positives.to(device), groups, weight


def dense(q, k, positives, t, *, normalize=False, query_groups=None, key_groups=None, same_group="exclude"):
    """Row losses and logits by the whole matrix and masks."""
    if normalize:
        q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    logits = q @ k.T / t
    own = F.one_hot(positives.clamp(min=0), len(k)).bool()
    same = torch.zeros_like(own)
    if query_groups is not None:
        same = (query_groups[:, None] == key_groups) & (query_groups[:, None] >= 0)
    counted = logits.masked_fill(same & ~own, -torch.inf) if same_group == "exclude" else logits
    right = own | same if same_group == "positive" else own
    target = torch.where(right, logits, 0.0).sum(1) / right.sum(1)
    rows = torch.where(positives >= 0, torch.logsumexp(counted.float() if q.dtype != torch.float64 else counted, 1)
                       - target, 0.0)  # fmt: skip
    return rows, counted.detach()


def gradients(rows, weight, inputs):
    return torch.autograd.grad((rows * weight).sum(), inputs)


def check_case(shape, dtype, device, within_error, *, normalize=False, grouped=None, seed=0):
    q, k, positives, groups, weight = make(*shape, dtype, device, seed)
    extra = {"normalize": normalize}
    if grouped:
        extra |= {"query_groups": groups[0], "key_groups": groups[1], "same_group": grouped}
    results = []
    for cast, function in ((dtype, "ours"), (torch.float64, "truth"), (dtype, "eager")):
        wide = cast if cast == torch.float64 else torch.float32
        t = torch.tensor(0.3, dtype=wide, device=device, requires_grad=True)
        inputs = [x.to(cast).detach().clone().requires_grad_() for x in (q, k)] + [t]
        if function == "ours":
            out = kernels.sparse_infonce(*inputs[:2], positives, temperature=t, **extra)
            rows = out.rows
        else:
            rows, logits = dense(*inputs[:2], positives, t.to(cast), **extra)
            if function == "truth":
                hits, own = hits_of(logits, positives)
        results.append([rows.detach(), *gradients(rows, weight.to(rows.dtype), inputs)])
    mine, truth, eager = results
    assert mine[0].dtype == torch.float32 and mine[1].dtype == mine[2].dtype == dtype
    for got, want, other, name in zip(mine, truth, eager, ("rows", *NAMES), strict=True):
        alone = shape[1] == 1  # one key: every gradient is 0, and eager's to the last bit
        if name == "temperature":  # a sum of terms of both signs: its error is measured against their sizes
            spread = (weight.double() * truth[0]).abs().sum() + want.abs() + 30 * alone
            share = 4e-3 if dtype != torch.float32 else 1e-3 if CUDA else 1e-6
            assert (got - want).abs() <= 2 * (other - want).abs() + share * spread
        else:
            within_error(got, want, other + 2e-6 * alone, dtype)
    valid = positives >= 0
    assert not mine[0][~valid].any() and not mine[1][~valid].any() and not out.positive_logit[~valid].any()
    if dtype == torch.float32 and not CUDA:
        assert torch.equal(out.top1, hits)
        torch.testing.assert_close(out.positive_logit.double(), own, rtol=1e-5, atol=1e-5)


def hits_of(logits, positives):
    valid = positives >= 0
    own = logits.gather(1, positives.clamp(min=0)[:, None]).squeeze(1)
    return (own >= logits.amax(1)) & valid, torch.where(valid, own, 0.0)


@pytest.mark.parametrize("grouped", [None, "exclude", "positive"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 131, 16), (67, 1, 5), (67, 131, 33), (64, 128, 64)], ids=str
)
def test_rows_and_every_gradient(shape, grouped, form, device, within_error):
    check_case(shape, torch.float32, device, within_error, grouped=grouped)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("grouped", [None, "exclude", "positive"])
def test_normalised_in_low_precision(grouped, dtype, tf32, device, within_error):
    check_case((67, 131, 33), dtype, device, within_error, normalize=True, grouped=grouped)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [200, 256, 257, 2048])
def test_wide_rows(dim, dtype, tf32, device, within_error):
    assert fused.plan(20, 70, dim, dtype).form == ("fused" if dim <= 256 else "chunked")
    check_case((20, 70, dim), dtype, device, within_error, normalize=True)


@pytest.mark.parametrize("grouped", [None, "positive"])
def test_strips_of_a_chunked_product(grouped, device, within_error, monkeypatch):
    monkeypatch.setattr(chunked, "STRIP_ELEMENTS", 100)  # 3 rows, or 4 keys
    assert fused.plan(23, 31, 9, torch.float32).form == "chunked"
    check_case((23, 31, 9), torch.float32, device, within_error, grouped=grouped)


@pytest.mark.parametrize("processors", [1, 3, 1000])
def test_the_split_of_the_keys_changes_rounding_only(processors, tf32, device, within_error, monkeypatch):
    monkeypatch.setattr(launches, "_processors", lambda device: processors)
    check_case((67, 321, 16), torch.float32, device, within_error)


def test_every_split_covers_all_steps():
    tiles = launches.Tiles(64, 64, 4, 3, 2)
    for rows, others in itertools.product((1, 64, 2048, 9000, 65536), (1, 64, 65, 8192, 65537)):
        parts, each = launches._parts(rows, others, tiles, torch.device("cpu"))
        steps = -(-others // 64)
        assert (parts - 1) * each < steps <= parts * each
        assert parts * rows <= max(4 * rows, 2 * 264 * 64 + rows)  # what is kept of each part stays O(M D)


def test_fp16_weights_of_many_rows_do_not_vanish(device, within_error):
    # 1 / rows times 1 / keys is under fp16's smallest number.
    q, k, positives, _, _ = make(40, 70, 16, torch.float16, device)
    grads = []
    for cast in (torch.float16, torch.float64):
        inputs = [x.to(cast).detach().clone().requires_grad_() for x in (q, k)]
        if cast == torch.float16:
            rows = kernels.sparse_infonce(*inputs, positives, temperature=1.0).rows
            grads.append(torch.autograd.grad(rows.sum() * 1e-6, inputs[1])[0].double() * 1e6)
        else:
            rows, _ = dense(*inputs, positives, 1.0)
            grads.append(torch.autograd.grad(rows.sum(), inputs[1])[0])
    assert (grads[0] - grads[1]).abs().max() <= 0.1 * grads[
        1
    ].abs().max()  # of fp16's own grid: the result is 1e-6


def test_symmetric_is_the_mean_of_both_directions(form, device, within_error):
    q, k, _, _, _ = make(33, 33, 6, torch.float32, device, seed=1)
    positives = torch.randperm(33, generator=torch.Generator().manual_seed(2)).to(device)
    results = []
    for cast in (torch.float32, torch.float64):
        a, b = (x.to(cast).detach().clone().requires_grad_() for x in (q, k))
        if cast == torch.float32:
            out = kernels.sparse_infonce(a, b, positives, temperature=0.2, normalize=True, symmetric=True)
            loss = out.loss
        else:
            logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2
            back = torch.argsort(positives)
            loss = (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, back)) / 2
            hits = (logits.argmax(1) == positives) & (logits.argmax(0) == back)[positives]
        results.append([loss.detach(), *torch.autograd.grad(loss, (a, b))])
    assert torch.equal(out.top1, hits)
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(
            got.double(), want, rtol=2e-2 if CUDA else 1e-5, atol=1e-2 if CUDA else 1e-7
        )


@pytest.mark.parametrize("exact", [True, pytest.param(False, marks=needs_cuda)], ids=["integers", "real"])
def test_equal_keys_tie_and_a_tie_is_a_hit(exact, form, device):
    _, k, positives, _, _ = make(40, 30, 17, torch.float32, device)
    # Where dots are rounded, the tensor core must round a pair alike in every tile; the interpreter's BLAS does not.
    k = (8 * k).round() if exact else k
    k = torch.cat([k, k, k, k])  # every key four times, in other tiles and other columns of a tile
    positives = torch.where(positives >= 0, positives + 60, -1)
    q = k[positives.clamp(min=0)] * 4
    k[0] = 100 * q[1]  # wins every row that points its way
    highest = (q.double() @ k.double().T).argmax(1) != 0
    out = kernels.sparse_infonce(q, k, positives, temperature=0.2)
    own = (q.double() * k[positives.clamp(min=0)].double()).sum(1)
    want = (own >= (q.double() @ k.double().T).amax(1) - 1e-6 * own.abs()) & (positives >= 0)
    assert torch.equal(out.top1, want) and want.any() and not want[highest.logical_not()].any()


def test_large_logits_do_not_overflow(form, device):
    q = torch.full((2, 3), 100.0, device=device, requires_grad=True)
    k = torch.tensor([[100.0] * 3, [-100.0] * 3], device=device)
    out = kernels.sparse_infonce(q, k, torch.tensor([0, 1], device=device), temperature=0.01)
    out.loss.backward()
    assert torch.isfinite(out.loss) and torch.isfinite(q.grad).all() and out.rows[0] == 0


def test_logits_far_below_zero(form, device, within_error):
    # Absent keys of the last tile would count as 0, which is far above all that are there.
    g = torch.Generator().manual_seed(3)
    q = -10 - torch.rand(7, 4, generator=g).to(device)
    k = 10 + torch.rand(9, 4, generator=g).to(device)
    positives, groups = torch.arange(7, device=device), torch.zeros(9, dtype=torch.int64, device=device)
    extra = {"query_groups": groups[:7], "key_groups": groups, "same_group": "positive"}
    for options in ({}, extra):
        results = []
        for cast in (torch.float32, torch.float64):
            leaves = [x.to(cast).clone().requires_grad_() for x in (q, k)]
            if cast == torch.float32:
                rows = kernels.sparse_infonce(*leaves, positives, temperature=0.1, **options).rows
            else:
                rows, _ = dense(*leaves, positives, 0.1, **options)
            results.append([rows.detach(), *torch.autograd.grad(rows.sum(), leaves)])
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(
                got.double(), want, rtol=0.2 if CUDA else 1e-2, atol=5 if CUDA else 1e-2
            )


def test_no_valid_row_and_nothing_at_all(form, device):
    q, k = (torch.randn(rows, 3, device=device, requires_grad=True) for rows in (5, 4))
    out = kernels.sparse_infonce(q, k, torch.full((5,), -1, device=device), temperature=0.2, normalize=True)
    out.loss.backward()
    assert out.loss == 0 and not q.grad.any() and not k.grad.any() and not out.top1.any()
    nothing = torch.empty(0, dtype=torch.int64, device=device)
    for m, n in ((0, 4), (0, 0), (3, 0)):
        a, b = (torch.zeros(rows, 3, device=device, requires_grad=True) for rows in (m, n))
        p = torch.full((m,), -1, device=device) if m else nothing
        out = kernels.sparse_infonce(a, b, p, temperature=0.2, normalize=True)
        out.loss.backward()
        assert out.loss == 0 and out.rows.shape == (m,) and not a.grad.any()


def test_only_what_needs_a_gradient_is_computed(form, device, monkeypatch):
    q, k, positives, _, _ = make(20, 30, 4, torch.float32, device)
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


def test_inputs_that_are_not_contiguous(form, device):
    q, k, positives, groups, weight = make(20, 30, 6, torch.float32, device)
    wide = [torch.cat([x, x], 1)[:, ::2].requires_grad_() for x in (q, k)]
    plain = [x.detach().contiguous().requires_grad_() for x in wide]
    extra = {"query_groups": groups[0].repeat_interleave(2)[::2], "key_groups": groups[1].to(torch.int32)}
    results = []
    for leaves in (wide, plain):
        p = positives.repeat_interleave(2)[::2]
        out = kernels.sparse_infonce(*leaves, p, temperature=0.2, **extra)
        results.append([out.rows, *gradients(out.rows, weight, leaves)])
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("grouped", [None, "positive"])
def test_same_bits_twice(grouped, form, device):
    q, k, positives, groups, weight = make(67, 321, 33, torch.float32, device)
    extra = {"query_groups": groups[0], "key_groups": groups[1], "same_group": grouped} if grouped else {}
    runs = []
    for _ in range(2):
        t = torch.tensor(0.3, device=device, requires_grad=True)
        leaves = [q.clone().requires_grad_(), k.clone().requires_grad_(), t]
        out = kernels.sparse_infonce(*leaves[:2], positives, temperature=t, normalize=True, **extra)
        runs.append([out.rows, out.top1, out.positive_logit, *gradients(out.rows, weight, leaves)])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


def test_autocast_around_it_changes_nothing(form, device):
    q, k, positives, _, _ = make(20, 30, 9, torch.float32, device)

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


def test_zero_rows_normalise_as_in_torch(device):
    x = torch.randn(5, 7, device=device)
    x[2] = 0
    grads = []
    for function in (unit_rows.unit_rows, lambda y: F.normalize(y, dim=1)):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        weight = torch.arange(35.0, device=device).reshape(5, 7)
        grads.append((out.detach(), *torch.autograd.grad((out * weight).sum(), leaf)))
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_opcheck(groups, form, device):
    q, k, positives, ids, weight = make(7, 13, 5, torch.float32, device)
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
def test_compiled_as_one_graph(grouped, form, device):
    torch.compiler.reset()
    q, k, positives, groups, _ = make(20, 30, 9, torch.float32, device)
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


def test_symmetric_compiles_too(tf32, device):
    torch.compiler.reset()
    q, k, _, _, _ = make(17, 17, 5, torch.float32, device)
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
def test_keys_gathered_from_two_ranks(tmp_path, tf32, device):
    q, k, _, _, _ = make(23, 23, 9, torch.float32, device)
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
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape", [(2048, 8192, 128), (4096, 8192, 256), (1000, 3001, 200), (513, 4096, 512)], ids=str
)
def test_real_shapes(shape, dtype, device, within_error):
    for grouped in (None, "exclude", "positive"):
        check_case(shape, dtype, device, within_error, normalize=True, grouped=grouped)


@needs_cuda
def test_top1_is_the_argmax_of_the_tensor_cores(device):
    q, k, positives, _, _ = make(2048, 4096, 128, torch.bfloat16, device)
    near = k[positives.clamp(min=0)] + 0.3 * torch.randn_like(q)
    out = kernels.sparse_infonce(near, k, positives, temperature=0.2)
    logits = near.double() @ k.double().T
    gap = logits.topk(2, 1).values
    sure = (positives >= 0) & (gap[:, 0] - gap[:, 1] > 1e-3)
    assert torch.equal(out.top1[sure], (logits.argmax(1) == positives)[sure]) and sure.sum() > 1000


@needs_cuda
def test_captured_in_a_graph(device):
    q, k, positives, _, _ = make(300, 900, 64, torch.bfloat16, device)
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
