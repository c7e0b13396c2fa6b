"""Layers whose input is made again in the backward pass: the same function and gradients, and less that is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scalefast import SCALE, SCALEPretraining
from scalefast._linear import Linear
from scalefast._recomputed import linear_of
from scalefast.kernels import RandomState


def normed(x, weight, bias):
    return F.layer_norm(x, weight.shape, weight, bias)


def case(*shape, dtype=torch.float64, bias=True, out=5):
    """A layer, and the input, scale and shift of the layer norm in front of it."""
    torch.manual_seed(0)
    layer = Linear(shape[-1], out, bias=bias).to(dtype)
    x, weight, shift = (torch.randn(*size, dtype=dtype) for size in (shape, shape[-1:], shape[-1:]))
    return layer, [tensor.requires_grad_() for tensor in (x, weight, shift)]


def gradients(out, tensors):
    """Of a sum that weighs all outputs differently."""
    weighed = (out.double() * torch.arange(out.numel()).view_as(out).cos()).sum()
    return torch.autograd.grad(weighed, [tensor for tensor in tensors if tensor.requires_grad])


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_gradients_are_those_of_finite_differences(bias):
    layer, inputs = case(2, 3, 4, bias=bias)
    every = (*inputs, *layer.parameters())
    assert torch.autograd.gradcheck(lambda *x: linear_of(layer, normed, *x[:3]), every)


@pytest.mark.parametrize("shape", [(7, 6), (2, 5, 6), (1, 1, 6), (0, 6)])
@pytest.mark.parametrize("trained", ["all", "layer", "x", "shift", "bias"])
def test_it_is_the_layer_after_what_makes_its_input(shape, trained):
    layer, inputs = case(*shape)
    named = dict(zip(("x", "weight", "shift"), inputs, strict=True)) | dict(
        layer=layer.weight, bias=layer.bias
    )
    for name, tensor in named.items():
        tensor.requires_grad_(trained in ("all", name))
    ours, plain = linear_of(layer, normed, *inputs), layer(normed(*inputs))
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    for one, other in zip(*(gradients(out, named.values()) for out in (ours, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_under_autocast_it_is_as_exact_as_the_layer():
    layer, inputs = case(50, 64, dtype=torch.float32, out=32)
    every = (*inputs, *layer.parameters())
    exact = gradients(
        F.linear(normed(*(t.double() for t in inputs)), layer.weight.double(), layer.bias.double()), every
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, plain = linear_of(layer, normed, *inputs), layer(normed(*inputs))
    assert ours.dtype == plain.dtype == torch.bfloat16
    assert torch.equal(ours, plain)
    for true, one, other in zip(exact, gradients(ours, every), gradients(plain, every), strict=True):
        assert one.dtype == other.dtype == torch.float32
        error, allowed = ((found - true).abs().max() for found in (one, other))
        assert error <= 1.5 * allowed + 1e-3 * true.abs().max()


def test_weights_rounded_on_the_way_keep_their_gradients_for_who_comes_later():
    layer, (x, *_) = case(3, 4, dtype=torch.float32)
    inner = nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear_of(layer, lambda x, *inner: F.linear(x, *inner), x, inner.weight, inner.bias)
        later = layer(inner(x))
    for grad in torch.autograd.grad(later.float().sum(), [layer.weight, inner.weight]):
        assert grad.abs().max() > 0


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    layer, inputs = case(3, 4)
    out = linear_of(layer, normed, *inputs).sum()
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(out, inputs)))


def test_what_was_drawn_is_drawn_again_though_the_step_has_advanced():
    torch.manual_seed(0)
    model = SCALE(feature_dim=12, hidden_dim=32, dropout=0.5).double().train()
    x, positions = torch.randn(3, 4, 12, dtype=torch.float64), torch.rand(3, 4, 7, dtype=torch.float64)
    rng = RandomState.create(0, rows=torch.arange(3))

    def found(*, advance):
        out = model(x, positions, rng=rng).clips.square().sum()
        rng.state[1] += advance
        grads = torch.autograd.grad(out, list(model.parameters()), allow_unused=True)
        rng.state[1] -= advance
        return [grad for grad in grads if grad is not None]

    still, advanced = found(advance=0), found(advance=1)
    assert all(map(torch.equal, still, advanced))


def test_a_transformer_keeps_what_each_layer_needs_once():
    """A unit is [B, 1 + V, H] in bf16. A block keeps its input, q, k and v, what was attended, the sum behind it, and
    two units before its GELU: 8. The last norm keeps 1. Without making anything again, each block has 12, and the
    embedding 2.3."""
    model = SCALE(feature_dim=32, hidden_dim=256, num_layers=3).train()
    features, positions = torch.randn(128, 8, 32), torch.rand(128, 8, 7)
    not_counted = {tensor.data_ptr() for tensor in (*model.parameters(), features, positions)}
    sizes = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in not_counted:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        clips = model(features, positions, rng=torch.tensor([0, 0])).clips  # alive: no address is used twice
    projections = 3 * 256 * 256 * 2  # weights in bf16, of layers that keep their input
    units = (sum(sizes.values()) - projections) / (clips.numel() * 9 / 8 * 2)
    assert 25 <= units < 25.1


def test_the_target_head_goes_back_last_and_gradients_come_in_the_order_in_which_they_are_sent():
    torch.manual_seed(0)
    task = SCALEPretraining(SCALE(feature_dim=16, hidden_dim=32), 8, head_dim=24, target_dim=24)
    parts = {id(p): name.split(".")[0] for name, p in task.named_parameters()}
    reached: list[str] = []
    for parameter in task.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: reached.append(parts[id(p)]))
    task(torch.randn(5, 2, 8, 16), torch.rand(5, 2, 8, 7)).loss.backward()
    assert list(dict.fromkeys(reached)) == ["set_head", "prediction_head", "model", "target_head"]
    assert [parts[id(p)] for p in task.trained_parameters()] == reached
