"""The heads' linear layer: the same function on both of its paths, and on the path that the machine calls for."""

from __future__ import annotations

import pytest
import torch

from scalefast import _linear
from scalefast._linear import HeadLinear

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch has no oneDNN linear"
)


@needs_onednn
@pytest.mark.parametrize("path", [True, False], ids=["oneDNN", "PyTorch"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 13, 5), (64, 48, 96), (130, 257, 31)], ids=str)
def test_output_and_gradients(shape, path, monkeypatch):
    monkeypatch.setattr(_linear, "prefers_onednn", lambda: path)
    g = torch.Generator().manual_seed(0)
    rows, inner, outer = shape
    layer = HeadLinear(inner, outer)
    x = torch.randn(inner, rows, generator=g).t().requires_grad_()  # not contiguous
    weight = torch.randn(rows, outer, generator=g)
    y = layer(x)
    grads = torch.autograd.grad(y, (x, layer.weight), weight)
    truth_x, truth_w = x.detach().double(), layer.weight.detach().double()
    for got, want in (
        (y, truth_x @ truth_w.T),
        (grads[0], weight.double() @ truth_w),
        (grads[1], weight.double().T @ truth_x),
    ):
        assert (got.double() - want).abs().max() <= 1e-5 * want.abs().max()
    again = torch.autograd.grad(layer(x), (x, layer.weight), weight)
    assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True))


@needs_onednn
def test_other_dtypes_autocast_and_empty_input_take_pytorchs_own(monkeypatch):
    monkeypatch.setattr(_linear, "prefers_onednn", lambda: True)

    def refuse(*_):
        raise AssertionError("oneDNN was asked")

    monkeypatch.setattr(_linear, "_product", refuse)
    layer = HeadLinear(4, 3)
    assert layer(torch.zeros(0, 4)).shape == (0, 3)
    assert layer.double()(torch.zeros(2, 4, dtype=torch.float64)).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.float()(torch.zeros(2, 4)).dtype == torch.bfloat16
    with pytest.raises(AssertionError, match="oneDNN was asked"):
        layer(torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("", "", False),
    ],
)
def test_the_rule_is_about_the_processor(vendor, capability, expected, monkeypatch):
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        expected = False
    monkeypatch.setattr(_linear, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert _linear.prefers_onednn.__wrapped__() is expected
