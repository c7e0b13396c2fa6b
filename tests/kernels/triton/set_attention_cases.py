"""Inputs of the attention's tests, and how it is held to the reference."""

from __future__ import annotations

import torch

from scalefast.kernels import RandomState


def make(shape, dtype, device, seed=0):
    """q, k, v as a model makes them: slices of one projection, so none is contiguous. And a gradient."""
    g = torch.Generator().manual_seed(seed)
    *front, heads, dim = shape
    qkv = torch.randn(*front, 3, heads, dim, generator=g, dtype=torch.float64)
    grad = torch.randn(*front, heads, dim, generator=g, dtype=torch.float64)
    return qkv.to(dtype).to(device), grad.to(dtype).to(device)


def run(function, qkv, grad):
    """Output and the gradients of q, k and v."""
    tensors = [t.detach().requires_grad_() for t in qkv.unbind(-3)]
    out = function(*tensors)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad)]


def state(device, sets, p, layer=1):
    if p == 0.0:
        return None
    return RandomState.create(3 << 33, step=5, rows=torch.arange(sets, device=device) + 50).at_layer(layer)


def check(within_error, attend, plain, qkv, grad):
    got = run(attend, qkv, grad)
    truth = run(plain, qkv.double(), grad.double())
    eager = run(plain, qkv, grad)
    for one, two, three in zip(got, truth, eager, strict=True):
        within_error(one, two, three)
    for one, two in zip(got, run(attend, qkv, grad), strict=True):
        assert torch.equal(one, two), "the same bits twice"
