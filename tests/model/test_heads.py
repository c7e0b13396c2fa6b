"""The losses' MLPs: the function of `nn.Sequential`, with its gradients and less memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scalefast import _heads
from scalefast._heads import GeluMLP

WIDTHS = (6, 8, 10, 3)


@pytest.fixture(autouse=True, params=[30, 1 << 22], ids=["chunks of 3 rows", "one chunk"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(_heads, "CHUNK_ELEMENTS", request.param)


def mlp(dtype=torch.float64, widths=WIDTHS):
    torch.manual_seed(0)
    return GeluMLP(*widths).to(dtype)


def outcome(forward, x, weights):
    """Output, and gradients of everything that wants one, of a sum that weighs all outputs differently."""
    out = forward(x)
    wanted = [tensor for tensor in (x, *weights) if tensor.requires_grad]
    return out, *torch.autograd.grad(
        (out.float() * torch.arange(out.numel()).view_as(out).cos()).sum(), wanted
    )


def plainly(head):
    return lambda x: nn.Sequential.forward(head, x)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_gradients_are_those_of_finite_differences(rows):
    head = mlp()
    x = torch.randn(rows, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: head(x), (x, *head.parameters()))


@pytest.mark.parametrize("shape", [(7, 6), (2, 5, 6), (0, 6)])
@pytest.mark.parametrize("trained", ["all", "weights", "input", "last weight"])
def test_it_is_the_layers_one_after_the_other(shape, trained):
    head = mlp()
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=trained in ("all", "input"))
    for weight in head.parameters():
        weight.requires_grad_(trained in ("all", "weights"))
    if trained == "last weight":
        head[-1].weight.requires_grad_(True)
    ours, plain = (outcome(form, x, head.parameters()) for form in (head, plainly(head)))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_under_autocast_it_is_as_exact_as_the_layers():
    truth, head = mlp(widths=(64, 256, 256, 16)), mlp(torch.float32, widths=(64, 256, 256, 16))
    x = torch.randn(50, 64, requires_grad=True)
    exact = outcome(truth, x.detach().double().requires_grad_(), truth.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, plain = (outcome(form, x, head.parameters()) for form in (head, plainly(head)))
    assert ours[0].dtype == plain[0].dtype == torch.bfloat16
    for true, one, other in zip(exact, ours, plain, strict=True):
        assert one.dtype == other.dtype
        error, allowed = ((found - true).abs().max() for found in (one, other))
        assert error <= 2 * allowed + 1e-3 * true.abs().max()


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    head = mlp()
    out = head(torch.randn(7, 6, dtype=torch.float64)).sum()
    first = torch.autograd.grad(out, list(head.parameters()), retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(out, list(head.parameters())), strict=True):
        assert torch.equal(one, other)


def test_it_keeps_one_tensor_a_hidden_layer():
    head = mlp(torch.float32, widths=(16, 512, 512, 8))
    x = torch.randn(100, 16)

    def kept(forward):
        sizes = {}

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = forward(x)  # noqa: F841  # alive, so that no address is used twice
        return sum(sizes.values()) - sum(weight.nbytes for weight in head.parameters())

    hidden = 100 * 512 * 4
    assert kept(head) == x.nbytes + 2 * hidden
    assert kept(plainly(head)) > 3.5 * hidden
