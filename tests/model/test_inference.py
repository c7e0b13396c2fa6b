"""The forward pass for inference on a CPU: as exact as the model itself, and gone when its context ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from scalefast import SCALE
from scalefast._inference import InferencePass, fast_inference
from scalefast.kernels.ops.products.packed import PackedLinear, serves_packed

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not serves_packed(torch.bfloat16, device=CPU),
    reason="no AVX-512 with bf16: the model itself computes here",
)


def made(**options) -> SCALE:
    """A model whose tokens, norms and scales are not what initialisation leaves."""
    torch.manual_seed(0)
    model = SCALE(40, hidden_dim=64, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += torch.randn_like(parameter) / 4
        if model.calibrated:
            model.input_scale.fill_(1.7)
            model.time_scale.fill_(0.3)
    return model


def batch(
    sets: int, clips: int, lengths: list[int] | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(sets * clips)
    features, positions = (torch.randn(sets, clips, size, generator=generator) for size in (40, 7))
    if lengths is None:
        return features, positions, None
    for row, length in enumerate(lengths):
        features[row, length:] = float("nan")  # padding may hold anything
    return features, positions, torch.tensor(lengths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"center_sets": True, "calibrated": True, "position_use": "time"},
        {"num_layers": 1, "mlp_ratio": 1.5},
    ],
    ids=["paper", "centred", "small"],
)
@pytest.mark.parametrize(
    ("sets", "clips", "lengths"), [(3, 16, None), (4, 5, [5, 1, 3, 2]), (1, 1, None), (2, 30, None)]
)
def test_it_is_as_exact_as_the_model(sets, clips, lengths, options, dtype) -> None:
    model, inputs = made(**options), batch(sets, clips, lengths)
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            plain = model(*inputs)
            with fast_inference(model, dtype=dtype, rows=sets * clips):
                assert isinstance(model.forward, InferencePass)
                fast = model(*inputs)
        exact = model.double()(
            *(x if x is None else x.double() if x.is_floating_point() else x for x in inputs)
        )
    assert fast.video.dtype == fast.clips.dtype == dtype
    assert torch.equal(fast.backbone, inputs[0]) or lengths is not None
    for name in ("clips", "video"):
        found, eager, truth = (getattr(output, name).double() for output in (fast, plain, exact))
        assert (found - truth).abs().max() <= 2 * (eager - truth).abs().max() + 1e-6 * truth.abs().max()
    if lengths is not None:
        assert all(not fast.clips[row, length:].any() for row, length in enumerate(lengths))


def test_positions_that_all_sets_share_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (features, positions, _) = made(), batch(4, 6, None)
    rows, whole = [], PackedLinear.__call__
    monkeypatch.setattr(
        PackedLinear, "__call__", lambda self, x, **how: (rows.append(x.shape), whole(self, x, **how))[1]
    )
    for places, expected in ((positions, 4), (positions[:1].expand(4, -1, -1), 1)):
        rows.clear()
        with torch.inference_mode(), fast_inference(model, dtype=torch.float32, rows=24):
            found = model(features, places).video
        torch.testing.assert_close(found, model(features, places).video.detach(), rtol=1e-4, atol=1e-5)
        assert rows[1] == (expected, 6, 7)


def test_the_model_is_as_before_when_the_context_ends() -> None:
    model, (features, positions, _) = made(), batch(2, 4, None)
    before = model(features, positions)
    with pytest.raises(KeyError), fast_inference(model, dtype=torch.bfloat16, rows=8):
        assert model(features, positions).video.dtype == torch.bfloat16
        raise KeyError
    after = model(features, positions)
    assert torch.equal(after.video, before.video)
    assert after.video.requires_grad


@pytest.mark.parametrize("why", ["training", "backend", "fp64"])
def test_what_it_does_not_serve_is_left_to_the_model(why, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    if why == "training":
        model.train()
    elif why == "backend":
        monkeypatch.setenv("SCALEFAST_BACKEND", "reference")
    else:
        model.double()
    with fast_inference(model, dtype=torch.float32, rows=8):
        assert "forward" not in vars(model)


def test_inputs_that_do_not_fit_are_refused_as_by_the_model() -> None:
    model = made()
    with (
        fast_inference(model, dtype=torch.float32, rows=8),
        pytest.raises(ValueError, match="features must be"),
    ):
        model(torch.zeros(2, 4, 41), torch.zeros(2, 4, 7))


@given(
    rows=st.integers(1, 70), expected=st.integers(1, 300), inner=st.integers(1, 50), outer=st.integers(1, 50),
    activation=st.sampled_from(["none", "relu", "gelu"]), biased=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_packed_layer_serves_any_number_of_rows(rows, expected, inner, outer, activation, biased) -> None:
    generator = torch.Generator().manual_seed(rows)
    layer = torch.nn.Linear(inner, outer, bias=biased)
    x, residual = (torch.randn(rows, size, generator=generator) for size in (inner, outer))
    packed = PackedLinear(layer, dtype=torch.float32, rows=expected)
    with torch.no_grad():
        after = {"none": lambda y: y, "relu": F.relu, "gelu": F.gelu}[activation]
        torch.testing.assert_close(packed(x, activation=activation), after(layer(x)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(packed.plus(x, residual), layer(x) + residual, rtol=1e-5, atol=1e-5)
