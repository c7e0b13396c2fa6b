"""Inputs of the contrastive loss's tests, and the dense formulas that it is held to."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from scalefast import kernels

CUDA = torch.cuda.is_available()
NAMES = ("queries", "keys", "temperature")


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
