"""The ops inside `torch.compile(fullgraph=True)` on CPU, where PyTorch serves them: same values and gradients as eager.

The Triton path is compiled in `tests/kernels/triton`. The backend traces and partitions as inductor's does, but calls
PyTorch's own kernels: no compiler is needed.
"""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), requires_grad=True)


def embed(x, position, mask_token, cls_token):
    return kernels.embed_sets(x, position, torch.arange(12).reshape(3, 4) % 3 == 0, mask_token, cls_token)


def gather(tokens):
    return kernels.gather_masked(tokens, torch.arange(12).reshape(3, 4) % 3 == 0, capacity=8)[0]


def attention(q, k, v):
    rng = RandomState(torch.tensor([3, 1]), torch.arange(3))
    return kernels.set_attention(
        q, k, v, lengths=torch.tensor([4, 1, 2]), dropout_p=0.25, rng=rng, attention_backend="reference"
    )


def infonce(queries, keys):
    out = kernels.sparse_infonce(queries, keys, torch.tensor([1, -1, 4]), temperature=0.2, normalize=True)
    return out.rows


def views(bank):
    rows = torch.tensor([2, 0])
    features, positions = kernels.sample_views(
        bank, torch.rand(3, 6, 7), rows, views=2, rng=torch.tensor([1, 2])
    )
    return features + positions.sum() * 0


CASES = {
    "embed_sets": (embed, [randn(3, 4, 8), randn(3, 4, 8), randn(8), randn(8)]),
    "gather_masked": (gather, [randn(3, 4, 8)]),
    "set_attention": (attention, [randn(3, 4, 2, 16), randn(3, 4, 2, 16), randn(3, 4, 2, 16)]),
    "sparse_infonce": (infonce, [randn(3, 16), randn(7, 16)]),
    "sample_views": (views, [randn(3, 6, 8)]),
}


@pytest.mark.parametrize("name", CASES)
def test_fullgraph(name):
    function, inputs = CASES[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    want, got = function(*inputs), compiled(*inputs)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    weight = torch.randn(want.shape, generator=torch.Generator().manual_seed(9))
    want_grads = torch.autograd.grad(want, inputs, weight)
    got_grads = torch.autograd.grad(got, inputs, weight)
    for one, other in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
