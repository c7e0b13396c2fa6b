"""The contrastive loss's kernels: against dense fp64 formulas, on awkward shapes, through torch's machinery."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from scalefast import kernels
from scalefast.kernels.ops.sparse_infonce import chunked, launches, unit_rows
from scalefast.kernels.ops.sparse_infonce import triton as fused

CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs CUDA")
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if CUDA else [])


@pytest.mark.parametrize("grouped", [None, "exclude", "positive"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 131, 16), (67, 1, 5), (67, 131, 33), (64, 128, 64)], ids=str
)
def test_rows_and_every_gradient(shape, grouped, form, device, within_error, cases):
    cases.check_case(shape, torch.float32, device, within_error, grouped=grouped)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("grouped", [None, "exclude", "positive"])
def test_normalised_in_low_precision(grouped, dtype, tf32, device, within_error, cases):
    cases.check_case((67, 131, 33), dtype, device, within_error, normalize=True, grouped=grouped)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [200, 256, 257, 2048])
def test_wide_rows(dim, dtype, tf32, device, within_error, cases):
    assert fused.plan(20, 70, dim, dtype).form == ("fused" if dim <= 256 else "chunked")
    cases.check_case((20, 70, dim), dtype, device, within_error, normalize=True)


@pytest.mark.parametrize("grouped", [None, "positive"])
def test_strips_of_a_chunked_product(grouped, device, within_error, monkeypatch, cases):
    monkeypatch.setattr(chunked, "STRIP_ELEMENTS", 100)  # 3 rows, or 4 keys
    assert fused.plan(23, 31, 9, torch.float32).form == "chunked"
    cases.check_case((23, 31, 9), torch.float32, device, within_error, grouped=grouped)


@pytest.mark.parametrize("processors", [1, 3, 1000])
def test_the_split_of_the_keys_changes_rounding_only(
    processors, tf32, device, within_error, monkeypatch, cases
):
    monkeypatch.setattr(launches, "_processors", lambda device: processors)
    cases.check_case((67, 321, 16), torch.float32, device, within_error)


def test_every_split_covers_all_steps():
    tiles = launches.Tiles(64, 64, 4, 3, 2)
    for rows, others in itertools.product((1, 64, 2048, 9000, 65536), (1, 64, 65, 8192, 65537)):
        parts, each = launches.split_loop(rows, others, tiles, torch.device("cpu"))
        steps = -(-others // 64)
        assert (parts - 1) * each < steps <= parts * each
        assert parts * rows <= max(4 * rows, 2 * 264 * 64 + rows)  # what is kept of each part stays O(M D)


def test_fp16_weights_of_many_rows_do_not_vanish(device, within_error, cases):
    # 1 / rows times 1 / keys is under fp16's smallest number.
    q, k, positives, _, _ = cases.make(40, 70, 16, torch.float16, device)
    grads = []
    for cast in (torch.float16, torch.float64):
        inputs = [x.to(cast).detach().clone().requires_grad_() for x in (q, k)]
        if cast == torch.float16:
            rows = kernels.sparse_infonce(*inputs, positives, temperature=1.0).rows
            grads.append(torch.autograd.grad(rows.sum() * 1e-6, inputs[1])[0].double() * 1e6)
        else:
            rows, _ = cases.dense(*inputs, positives, 1.0)
            grads.append(torch.autograd.grad(rows.sum(), inputs[1])[0])
    assert (grads[0] - grads[1]).abs().max() <= 0.1 * grads[
        1
    ].abs().max()  # of fp16's own grid: the result is 1e-6


def test_symmetric_is_the_mean_of_both_directions(form, device, within_error, cases):
    q, k, _, _, _ = cases.make(33, 33, 6, torch.float32, device, seed=1)
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
def test_equal_keys_tie_and_a_tie_is_a_hit(exact, form, device, cases):
    _, k, positives, _, _ = cases.make(40, 30, 17, torch.float32, device)
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


def test_logits_far_below_zero(form, device, within_error, cases):
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
                rows, _ = cases.dense(*leaves, positives, 0.1, **options)
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


@pytest.mark.parametrize("grouped", [None, "positive"])
def test_same_bits_twice(grouped, form, device, cases):
    q, k, positives, groups, weight = cases.make(67, 321, 33, torch.float32, device)
    extra = {"query_groups": groups[0], "key_groups": groups[1], "same_group": grouped} if grouped else {}
    runs = []
    for _ in range(2):
        t = torch.tensor(0.3, device=device, requires_grad=True)
        leaves = [q.clone().requires_grad_(), k.clone().requires_grad_(), t]
        out = kernels.sparse_infonce(*leaves[:2], positives, temperature=t, normalize=True, **extra)
        runs.append([out.rows, out.top1, out.positive_logit, *cases.gradients(out.rows, weight, leaves)])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)


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


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape", [(2048, 8192, 128), (4096, 8192, 256), (1000, 3001, 200), (513, 4096, 512)], ids=str
)
def test_real_shapes(shape, dtype, device, within_error, cases):
    for grouped in (None, "exclude", "positive"):
        cases.check_case(shape, dtype, device, within_error, normalize=True, grouped=grouped)


@needs_cuda
def test_top1_is_the_argmax_of_the_tensor_cores(device, cases):
    q, k, positives, _, _ = cases.make(2048, 4096, 128, torch.bfloat16, device)
    near = k[positives.clamp(min=0)] + 0.3 * torch.randn_like(q)
    out = kernels.sparse_infonce(near, k, positives, temperature=0.2)
    logits = near.double() @ k.double().T
    gap = logits.topk(2, 1).values
    sure = (positives >= 0) & (gap[:, 0] - gap[:, 1] > 1e-3)
    assert torch.equal(out.top1[sure], (logits.argmax(1) == positives)[sure]) and sure.sum() > 1000
