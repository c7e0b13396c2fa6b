"""How fast are the C library's kernels, beside PyTorch's own at the reference shapes? At least 1.3 times, or they go.

512 videos of two sets of 8 clips and a CLS token, width 256 in 8 heads; a strip of 512 rows of 8,192 logits; 20
neighbours of 512 videos in a tile of a gallery.
"""

from __future__ import annotations

import os

import pytest
import torch

from scalefast import kernels
from scalefast.calibration import masked_mean, masked_std
from scalefast.kernels import RandomState
from scalefast.kernels.ops import native
from scalefast.kernels.ops.native import calls
from scalefast.kernels.ops.philox import Site, dropout, dropout_multiplier
from scalefast.kernels.ops.set_attention import native as attention
from scalefast.kernels.ops.set_embedding import native as embedding
from scalefast.kernels.ops.set_embedding import reference as plain_embedding

LEAST = 1.3
pytestmark = pytest.mark.skipif(
    native.lacking() is not None, reason=f"no native kernels here: {native.lacking()}"
)


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def judge(benchmark, side_by_side, ours, pytorch, *, check):
    """Time both once they agree."""
    check(ours(), pytorch())
    benchmark.extra_info.update(threads=torch.get_num_threads(), load=os.getloadavg()[0])
    best = side_by_side.race(benchmark, ours, {"PyTorch": pytorch}, rounds=9)
    if benchmark.enabled:
        assert best["PyTorch"] >= LEAST * best["ours"], best


def close(found, expected, *, share):
    for one, other in zip(found, expected, strict=True):
        assert (one.float() - other.float()).abs().max() <= share * other.float().abs().max()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_set_attention(benchmark, side_by_side, smaller, dtype, dropout):
    """Forward and backward; PyTorch's is its fused attention, or with dropout the reference."""
    sets = 16 if smaller else 1024
    qkv, grad = numbers(sets, 9, 3, 8, 32, dtype=dtype), numbers(sets, 9, 8, 32, seed=1, dtype=dtype)
    rng = RandomState.create(0, rows=torch.arange(sets))
    backend = "sdpa" if dropout == 0 else "reference"

    def both(function):
        x = qkv.clone().requires_grad_()

        def run():
            x.grad = None
            out = function(x)
            out.backward(grad)
            return out.detach(), x.grad

        return run

    ours = both(
        lambda x: attention.attention_qkv(x, lengths=None, dropout_p=dropout, rng=rng if dropout else None)
    )
    given = {"dropout_p": dropout, "rng": rng if dropout else None, "attention_backend": backend}
    pytorch = both(lambda x: kernels.set_attention_qkv(x, **given))
    share = 1e-5 if dtype == torch.float32 else 3e-2
    judge(benchmark, side_by_side, ours, pytorch, check=lambda a, b: close(a, b, share=share))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_dropout(benchmark, side_by_side, smaller, dtype):
    """PyTorch's draws the same Philox numbers, in int64 tensors, since it has no unsigned product of 32 bits."""
    x = numbers(16 if smaller else 1024, 9, 256, dtype=dtype)
    rng = RandomState.create(0, rows=torch.arange(len(x)))
    blocks = torch.arange(9 * 256 // 8)

    def pytorch():
        drawn = dropout_multiplier(rng, site=Site.HIDDEN_DROPOUT, blocks=blocks, p=0.1, dtype=dtype)
        return x * drawn.view_as(x)

    def ours():
        return dropout(x, rng, site=Site.HIDDEN_DROPOUT, p=0.1)

    judge(benchmark, side_by_side, ours, pytorch, check=lambda a, b: close([a], [b], share=1e-2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_set_embedding(benchmark, side_by_side, smaller, dtype):
    sets = 16 if smaller else 1024
    x, positions = numbers(sets, 8, 256, dtype=dtype), numbers(sets, 8, 256, seed=1, dtype=dtype)
    mask, tokens = torch.rand(sets, 8) < 0.25, (numbers(256, seed=2), numbers(256, seed=3))
    judge(
        benchmark,
        side_by_side,
        lambda: embedding.embed_sets(x, positions, mask, *tokens),
        lambda: plain_embedding.embed_sets(x, positions, mask, *tokens),
        check=lambda a, b: close([a], [b], share=1e-2),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_moments(benchmark, side_by_side, smaller, dtype):
    """Mean, standard deviation and largest value over the clips, as evaluation and `scalefast embed` take them."""
    clips = numbers(16 if smaller else 256, 16, 768, dtype=dtype)

    def pytorch():
        return masked_mean(clips, None), masked_std(clips, None), clips.float().amax(1)

    judge(
        benchmark,
        side_by_side,
        lambda: calls.moments(clips, None),
        pytorch,
        check=lambda a, b: close(a, b, share=1e-5),
    )


def test_infonce_rows(benchmark, side_by_side, smaller):
    logits = numbers(8 if smaller else 512, 8192) * 3

    def pytorch():
        most = logits.amax(1)
        return most, (logits - most[:, None]).exp_().sum(1).log_() + most

    judge(
        benchmark,
        side_by_side,
        lambda: calls.infonce_rows(logits),
        pytorch,
        check=lambda a, b: close(a, b, share=1e-6),
    )


def test_infonce_slopes(benchmark, side_by_side, smaller):
    """In place, as the reference does it; each turn begins with a copy of the logits."""
    logits = numbers(8 if smaller else 512, 8192) * 3
    rows = len(logits)
    positives, lse, weights = torch.arange(rows), logits.logsumexp(1), numbers(rows, seed=1).abs()
    work = torch.empty_like(logits)

    def ours():
        work.copy_(logits)
        calls.infonce_slopes(work, positives=positives, lse=lse, weights=weights)
        return work

    def pytorch():
        slope = work.copy_(logits).sub_(lse[:, None]).exp_()
        own = positives[:, None]
        slope.scatter_add_(1, own, slope.new_full((1, 1), -1.0).expand_as(own))
        return slope.mul_(weights[:, None])

    check = [ours().clone(), pytorch().clone()]
    judge(benchmark, side_by_side, ours, pytorch, check=lambda *_: close(check[:1], check[1:], share=1e-5))


def test_topk(benchmark, side_by_side, smaller):
    values, k = numbers(8 if smaller else 512, 16384), 20

    def ours():
        best, place = values.new_empty(len(values), k), torch.empty(len(values), k, dtype=torch.int64)
        assert calls.best_columns(values, first=0, best=best, place=place, held=0)
        return best, place

    def same(found, expected):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

    judge(benchmark, side_by_side, ours, lambda: tuple(values.topk(k, dim=1)), check=same)
