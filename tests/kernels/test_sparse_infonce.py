"""The contrastive loss against a dense fp64 log-softmax: values, statistics, every gradient, memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from scalefast import kernels

SHAPES = [(1, 1, 1), (7, 13, 5), (64, 64, 16), (3, 257, 31), (40, 11, 8)]


def make(m, n, d, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(r, d, generator=g, dtype=torch.float64).to(dtype) for r in (m, n))
    positives = torch.randint(0, n, (m,), generator=g)
    positives[:: max(2, m // 3)] = -1 if m > 1 else 0
    groups = [torch.randint(-1, 4, (r,), generator=g) for r in (m, n)]
    return q, k, positives, groups


def dense(q, k, positives, t, *, normalize, groups=None, same_group="exclude"):
    """Row losses by the whole matrix of logits and explicit sets of pairs."""
    if normalize:
        q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    logits = q @ k.T / t
    losses = []
    for i, own in enumerate(positives.tolist()):
        if own < 0:
            losses.append(logits[i].sum() * 0)
            continue
        same = set()
        if groups is not None and groups[0][i] >= 0:
            same = {j for j in range(len(k)) if groups[1][j] == groups[0][i]}
        counted = [j for j in range(len(k)) if j == own or same_group != "exclude" or j not in same]
        right = sorted(same | {own}) if same_group == "positive" else [own]
        losses.append(torch.logsumexp(logits[i, counted], 0) - logits[i, right].mean())
    return torch.stack(losses), logits


@pytest.mark.parametrize("grouped", [None, "exclude", "positive"])
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_and_every_gradient(shape, normalize, grouped, monkeypatch):
    monkeypatch.setattr(
        "scalefast.kernels.ops.sparse_infonce.reference._TILE_ELEMENTS", 3 * shape[1]
    )  # several tiles
    q, k, positives, groups = make(*shape)
    t = torch.tensor(0.3, dtype=torch.float64)
    mine = [x.clone().requires_grad_() for x in (q, k, t)]
    truth = [x.clone().requires_grad_() for x in (q, k, t)]
    extra = (
        {} if grouped is None else {"query_groups": groups[0], "key_groups": groups[1], "same_group": grouped}
    )
    out = kernels.sparse_infonce(
        mine[0], mine[1], positives, temperature=mine[2], normalize=normalize, **extra
    )
    rows, _ = dense(
        *truth[:2],
        positives,
        truth[2],
        normalize=normalize,
        groups=groups if grouped else None,
        same_group=grouped or "exclude",
    )
    torch.testing.assert_close(out.rows, rows, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        out.loss, rows.sum() / max(1, int((positives >= 0).sum())), rtol=1e-12, atol=1e-12
    )
    weight = torch.randn(len(rows), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    out.rows.backward(weight)
    rows.backward(weight)
    for got, want in zip(mine, truth, strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_no_worse_than_eager(dtype, within_error):
    q, k, positives, _ = make(50, 70, 33, dtype)

    def run(function, cast):
        a, b = (x.to(cast).detach().clone().requires_grad_() for x in (q, k))
        loss = function(a, b)
        loss.backward()
        return loss.detach(), a.grad, b.grad

    def eager(a, b):
        return F.cross_entropy(
            F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2, positives, ignore_index=-1
        )

    def ours(a, b):
        return kernels.sparse_infonce(a, b, positives, temperature=0.2, normalize=True).loss

    mine, truth, plain = run(ours, dtype), run(eager, torch.float64), run(eager, dtype)
    assert mine[1].dtype == dtype
    for got, want, other in zip(mine, truth, plain, strict=True):
        within_error(got, want, other)


def test_symmetric_is_the_mean_of_both_directions():
    g = torch.Generator().manual_seed(1)
    q, k = (torch.randn(17, 6, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    positives = torch.randperm(17, generator=g)
    out = kernels.sparse_infonce(q, k, positives, temperature=0.2, normalize=True, symmetric=True)
    logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / 0.2
    there = F.cross_entropy(logits, positives)
    back = F.cross_entropy(logits.T, torch.argsort(positives))
    torch.testing.assert_close(out.loss, (there + back) / 2)
    grads = torch.autograd.grad(out.loss, (q, k), retain_graph=True)
    wants = torch.autograd.grad((there + back) / 2, (q, k))
    for got, want in zip(grads, wants, strict=True):
        torch.testing.assert_close(got, want)
    hits = (logits.argmax(1) == positives) & (logits.argmax(0) == torch.argsort(positives))[positives]
    assert torch.equal(out.top1, hits)


def test_statistics_are_those_of_the_same_logits():
    q, k, positives, _ = make(64, 40, 16)
    out = kernels.sparse_infonce(q, k, positives, temperature=0.5)
    logits = q @ k.T / 0.5
    valid = positives >= 0
    assert torch.equal(out.top1, (logits.argmax(1) == positives) & valid)
    torch.testing.assert_close(out.positive_logit[valid], logits[valid, positives[valid]])
    assert not out.rows[~valid].any() and not out.positive_logit[~valid].any()


def test_no_valid_row_gives_zero_loss_and_zero_gradients():
    q, k = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    out = kernels.sparse_infonce(q, k, torch.full((5,), -1), temperature=0.2)
    out.loss.backward()
    assert out.loss == 0 and not q.grad.any() and not k.grad.any() and not out.top1.any()
    empty = torch.randn(0, 3, requires_grad=True)
    out = kernels.sparse_infonce(empty, k, torch.empty(0, dtype=torch.int64), temperature=0.2)
    out.loss.backward()
    assert out.loss == 0 and out.rows.shape == (0,)


def test_frozen_keys_get_no_gradient_and_the_queries_get_the_same():
    q, k, positives, _ = make(20, 30, 4)
    both = [q.clone().requires_grad_(), k.clone().requires_grad_()]
    kernels.sparse_infonce(*both, positives, temperature=0.2).loss.backward()
    one = q.clone().requires_grad_()
    kernels.sparse_infonce(one, k, positives, temperature=0.2).loss.backward()
    assert torch.equal(one.grad, both[0].grad)


def test_autocast_around_it_changes_nothing():
    q, k, positives, _ = make(50, 70, 33, torch.float32)

    def run(forward, backward):
        a, b = (x.clone().requires_grad_() for x in (q, k))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=forward):
            loss = kernels.sparse_infonce(a, b, positives, temperature=0.2, normalize=True).loss
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=backward):
            loss.backward()
        return loss.detach(), a.grad, b.grad

    plain = run(False, False)
    for around in ((True, False), (True, True), (False, True)):
        for got, want in zip(run(*around), plain, strict=True):
            assert torch.equal(got, want)


def test_large_logits_do_not_overflow():
    q = torch.full((2, 3), 100.0, requires_grad=True)
    out = kernels.sparse_infonce(
        q, torch.tensor([[100.0] * 3, [-100.0] * 3]), torch.tensor([0, 1]), temperature=0.01
    )
    out.loss.backward()
    assert torch.isfinite(out.loss) and torch.isfinite(q.grad).all() and out.rows[0] == 0


MEMORY = """
import resource, torch
from scalefast import kernels
torch.set_num_threads(2)
q, k = (torch.nn.functional.normalize(torch.randn(16384, 64), dim=1).requires_grad_() for _ in range(2))
kernels.sparse_infonce(q[:64], k[:64], torch.arange(64), temperature=0.2).loss.backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kernels.sparse_infonce(q, k, torch.arange(16384), temperature=0.2, symmetric=True).loss.backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_sixteen_thousand_squared_fits_in_300_mb():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) < 300, f"{done.stdout} MB"


def test_bad_input_is_named():
    q, k, p = torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 4])
    loss = kernels.sparse_infonce
    with pytest.raises(ValueError, match=r"keys must be \[N, 4\]"):
        loss(q, k[:, :2], p, temperature=0.2)
    with pytest.raises(ValueError, match=r"queries must be floating \[M, D\]"):
        loss(q[0], k, p, temperature=0.2)
    with pytest.raises(ValueError, match=r"positives must be int64 \[3\]"):
        loss(q, k, p[:2], temperature=0.2)
    with pytest.raises(ValueError, match=r"positives must be in \[-1, 5\); got 0 to 5"):
        loss(q, k, torch.tensor([0, 1, 5]), temperature=0.2)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        loss(q, k, p, temperature=0.0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        loss(q, k, p, temperature=torch.tensor(float("nan")))
    with pytest.raises(ValueError, match="as many keys as queries"):
        loss(q, k, p, temperature=0.2, symmetric=True)
    with pytest.raises(ValueError, match="permutation"):
        loss(q, k[:3], torch.tensor([0, 1, 1]), temperature=0.2, symmetric=True)
    with pytest.raises(ValueError, match="go together"):
        loss(q, k, p, temperature=0.2, query_groups=p)
    with pytest.raises(ValueError, match=r"key_groups must be int64 \[5\]"):
        loss(q, k, p, temperature=0.2, query_groups=p, key_groups=p)
    with pytest.raises(ValueError, match="same_group must be"):
        loss(q, k, p, temperature=0.2, same_group="drop")
