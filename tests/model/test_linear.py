"""The linear layer: the same function on both of its paths, and the path that processor, dtype and size call for."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from scalefast._linear import Linear
from scalefast.kernels.ops import products


@pytest.fixture
def onednn(monkeypatch):
    """Every fp32 product goes to oneDNN, whatever the processor and the size; counts them."""
    monkeypatch.setattr(products, "PREFERS_ONEDNN", True)
    monkeypatch.setattr(products, "SMALLEST", 0)
    calls = []

    def counted(*args):
        calls.append(args[0].shape)
        return F.conv2d(*args)

    class Functional:
        linear, conv2d = staticmethod(F.linear), staticmethod(counted)

    monkeypatch.setattr(products, "F", Functional)
    return calls


def check(layer, x, weight):
    y = layer(x)
    parameters = [p for p in (layer.weight, layer.bias) if p is not None]
    grads = torch.autograd.grad(y, (x, *parameters), weight)
    again = torch.autograd.grad(layer(x), (x, *parameters), weight)
    truth_x = x.detach().double().requires_grad_()
    truth = [p.detach().double().requires_grad_() for p in parameters]
    truth_y = F.linear(truth_x, *truth)
    truth_grads = torch.autograd.grad(truth_y, (truth_x, *truth), weight.double())
    for got, want in ((y, truth_y), *zip(grads, truth_grads, strict=True)):
        assert got.shape == want.shape
        assert (got.double() - want).abs().max() <= 2e-6 * max(1.0, want.abs().max())
    assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 13, 5), (64, 48, 96), (130, 257, 31)], ids=str)
def test_output_and_gradients(shape, bias, onednn):
    g = torch.Generator().manual_seed(0)
    rows, inner, outer = shape
    layer = Linear(inner, outer, bias=bias)
    check(
        layer, torch.randn(rows, inner, generator=g).requires_grad_(), torch.randn(rows, outer, generator=g)
    )
    assert len(onednn) == 2


def test_sets_and_strided_rows(onednn):
    """A slice like the CLS of every set: rows that do not lie side by side (oneDNN's slow path if passed on so)."""
    g = torch.Generator().manual_seed(0)
    layer = Linear(24, 40)
    sets = torch.randn(6, 9, 24, generator=g).requires_grad_()
    check(layer, sets, torch.randn(6, 9, 40, generator=g))
    check(layer, sets.detach()[:, 0].requires_grad_(), torch.randn(6, 40, generator=g))
    turned = torch.randn(24, 11, generator=g).t().requires_grad_()
    check(layer, turned, torch.randn(11, 40, generator=g))


def test_what_is_not_plain_fp32_takes_pytorchs_own(onednn):
    layer = Linear(4, 3)
    assert layer.double()(torch.zeros(2, 4, dtype=torch.float64)).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.float()(torch.zeros(2, 4)).dtype == torch.bfloat16
    assert onednn == []
    layer(torch.zeros(2, 4))
    assert onednn == [(1, 4, 2, 1)]


def test_small_and_empty_products_take_pytorchs_own(onednn, monkeypatch):
    monkeypatch.setattr(products, "SMALLEST", 1 << 26)
    assert Linear(4, 3)(torch.zeros(0, 4)).shape == (0, 3)
    assert Linear(4, 3)(torch.zeros(2, 4)).shape == (2, 3)
    assert onednn == []
    Linear(512, 256)(torch.zeros(512, 512))
    assert len(onednn) == 1


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", torch.backends.mkldnn.is_available()),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "", False),
    ],
)
def test_the_rule_is_about_the_processor(vendor, capability, expected, monkeypatch):
    monkeypatch.setattr(products, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert products._prefers_onednn() is expected
