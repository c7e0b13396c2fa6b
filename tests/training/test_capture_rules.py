"""What a CUDA graph allows: the step that is captured waits for nothing, copies nothing over and draws no generator.

No GPU is needed: tensors of the meta device stand for those of one. They have shapes and dtypes and no memory, so that
the step is run at its real size (240,000 videos, batches of 512), and what would have to look at a value cannot. The
ops' own host code runs too, up to the launch of each kernel.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is not installed")

from torch._library.custom_ops import OPDEFS

from scalefast import kernels
from scalefast.kernels.ops import dispatch
from scalefast.kernels.ops.compilation.launch import Launch
from scalefast.training import PretrainConfig, recommended
from scalefast.training.bank import Batch, ResidentBank
from scalefast.training.batched.step import StackedStep
from scalefast.training.distributed import World
from scalefast.training.sampler import BatchPlan
from scalefast.training.schedule import build_optimizer
from scalefast.training.state import build_task
from scalefast.training.step import Step

GPU = torch.device("meta")
VIDEOS, CLIPS, DIM, BATCH = 240_000, 16, 768, 512
GRID_LIMIT = (2**31 - 1, 65_535, 65_535)

WAITS = {
    "_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "histc", "argwhere",
}  # fmt: skip
"""The host would have to know a value, or how many there are."""
UNORDERED = {"index_add", "scatter_reduce", "put", "cumsum", "kthvalue", "median"}
"""Sums of floats whose order CUDA leaves open: not the same bits twice. Not `scatter_add`, the gradient of `gather`:
its places are distinct wherever it is used, one addend each."""


class Literals(TorchFunctionMode):
    """Raises where numbers of the host become a tensor of the GPU; `torch.full` fills it there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        device = (kwargs or {}).get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None:
            assert torch.device(device) != GPU, f"{func.__name__} copies between host and device"
        return func(*args, **(kwargs or {}))


class Dispatched(TorchDispatchMode):
    """Raises on what a capture forbids or what would break a promise in a replay; runs the bodies of our own ops."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        space, name = func._schema.name.split("::")
        if space == "scalefast":
            return self._body(func._schema.name, args, kwargs)
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        on_gpu = any(t.device == GPU for t in tensors) or kwargs.get("device") == GPU
        plain = name.removesuffix("_")
        if on_gpu:
            assert plain not in WAITS, f"{name} makes the host wait"
            assert torch.Tag.nondeterministic_seeded not in func.tags, f"{name} draws from a generator"
            floats = any(t.is_floating_point() for t in tensors)
            assert not (plain in UNORDERED and floats), f"{name} has no fixed order"
            if plain in ("index", "index_put", "_index_put_impl") and args[1:]:
                masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
                assert not masks, f"{name} by a mask makes the host wait"
            if plain == "repeat_interleave":
                assert kwargs.get("output_size") is not None, f"{name} makes the host wait for its size"
        out = func(*args, **kwargs)
        if plain in ("_to_copy", "copy"):
            devices = {t.device for t in (*tensors, out)}
            assert len(devices) == 1, f"{name} copies between host and device"
        return out

    def _body(self, name, args, kwargs):
        """What the op does on a GPU, which must be what its fake says."""
        op = OPDEFS[name]
        with self:
            out = op._init_fn(*args, **kwargs)
        expected = op._abstract_fn(*args, **kwargs)
        pairs = zip(out, expected, strict=True) if isinstance(out, tuple) else [(out, expected)]
        for got, want in pairs:
            assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride()), name
        return out


@contextlib.contextmanager
def captured():
    """What runs inside is held to the rules."""
    with Literals(), Dispatched():
        yield


@pytest.fixture
def launches(monkeypatch):
    """Meta tensors pass for a GPU's; what would be launched is kept."""
    found: list[Launch] = []
    lacks = dispatch._lacks_triton
    monkeypatch.setattr(dispatch, "_lacks_triton", lambda d: None if d.type == "meta" else lacks(d))
    monkeypatch.setattr(Launch, "run", lambda launch: found.append(launch))
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda t: t.device.type == "meta"), raising=False)
    optimizers = importlib.import_module("torch.optim.optimizer")
    supported = optimizers._get_fused_kernels_supported_devices()
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: [*supported, "meta"])
    # One kernel of PyTorch's, which has no form without memory.
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *args, **kwargs: None)
    monkeypatch.setattr(
        torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext()
    )  # has no meta form
    for name in ("SCALEFAST_BACKEND", "SCALEFAST_CHECKS"):
        monkeypatch.delenv(name, raising=False)
    return found


def session(config, *, autocast=None):
    world = World(rank=0, size=1, device=GPU)
    features = torch.empty(VIDEOS, CLIPS, DIM, dtype=torch.float16, device=GPU)
    positions = torch.empty(VIDEOS, CLIPS, 7, device=GPU)
    task = build_task(config, feature_dim=DIM).to(GPU).train()
    optimizer = build_optimizer(task, learning_rate=1e-3, weight_decay=1e-4)
    for (
        group
    ) in optimizer.param_groups:  # as `captured=True` builds it, whose check of the rate reads its value
        group |= {"lr": torch.empty((), device=GPU), "capturable": True}
    return SimpleNamespace(
        config=config,
        world=world,
        bank=ResidentBank(features=features, positions=positions, facts={"videos": VIDEOS}, world=world),
        plan=BatchPlan(num_videos=VIDEOS, batch_size=BATCH, epochs=1, seed=0),
        task=task,
        optimizer=optimizer,
        progress=SimpleNamespace(say=print),
        autocast=autocast or contextlib.nullcontext(),
        start=0,
    )


def batch():
    return Batch(torch.empty(BATCH, dtype=torch.int64, device=GPU))


CONFIGS = {
    "paper": PretrainConfig(precision="fp32"),
    "clipped": PretrainConfig(precision="fp32", clip_grad_norm=1.0),
    "recommended": recommended().replace(precision="fp32"),
    "ema, variance": PretrainConfig(precision="fp32", target="ema", variance_weight=0.5),
    "others of the video left out": PretrainConfig(precision="fp32", same_video="exclude", center_sets=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step(name, launches):
    made = session(CONFIGS[name])
    step = Step(made)
    for _ in range(2):  # the second with the optimiser's moments there
        with captured():
            losses = step._compute(batch())
    assert losses.loss.shape == () and losses.loss.device == GPU
    assert all(p.grad is None for p in made.task.parameters()), "gradients live in the graph's memory alone"
    check(launches)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_step_in_lower_precision_takes_the_fused_loss(dtype, launches, monkeypatch):
    """Autocast's: unit rows stay fp32, and their products may be TF32, which is exacter than what autocast allows."""
    made = session(CONFIGS["paper"])
    made.task.to(dtype)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: True)
    step = Step(made)
    with captured():
        step._compute(batch())
    names = {launch.kernel.__name__ for launch in launches}
    assert {"row_kernel", "slope_kernel"} <= names and "dense_kernel" not in names
    check(launches)


@pytest.mark.parametrize("target", ["fixed", "trained"])
def test_a_step_of_several_models(target, launches):
    base = recommended().replace(precision="fp32", target=target, dropout=0.1, calibrated=False)
    configs = [base, base.replace(mask_ratio=0.25, temperature=0.1), base.replace(seed=3)]
    step = StackedStep([session(config) for config in configs])
    step.weights.set_rates([1e-3] * 3)
    with captured():
        losses = step._compute([batch(), batch()])
    assert losses.shape == (8, 3)
    check(launches)


def check(launches):
    """Grids that CUDA takes, at the size of Kinetics-400."""
    assert launches
    for launch in launches:
        assert all(0 < n <= most for n, most in zip(launch.grid, GRID_LIMIT, strict=False)), launch.name
        assert math.log2(launch.num_warps) in range(5)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda x, i: x.sum().item(), "_local_scalar_dense makes the host wait"),
        (lambda x, i: x[x > 0], "index by a mask makes the host wait"),
        (lambda x, i: (x > 0).nonzero(), "nonzero makes the host wait"),
        (lambda x, i: x.repeat_interleave(i), "repeat_interleave makes the host wait"),
        (lambda x, i: x + torch.tensor([1.0, 2.0]).to(GPU), "_to_copy copies between host and device"),
        (lambda x, i: torch.tensor([1.0, 2.0], device=GPU), "copies between host and device"),
        (lambda x, i: x.bernoulli(), "bernoulli draws from a generator"),
        (lambda x, i: torch.rand(2, device=GPU), "rand draws from a generator"),
        (lambda x, i: x.index_add(0, i, x), "index_add has no fixed order"),
    ],
)
def test_what_is_forbidden_is_found(act, message):
    x, i = torch.empty(2, device=GPU), torch.empty(2, dtype=torch.int64, device=GPU)
    with pytest.raises(AssertionError, match=message), captured():
        act(x, i)


def test_an_op_that_waits_in_its_own_host_code_is_found(launches, monkeypatch):
    rows = torch.empty(4, dtype=torch.int64, device=GPU)
    rng = kernels.RandomState(torch.empty(2, dtype=torch.int64, device=GPU), rows)
    kernels.draw_mask(rng, clips=8, probability=0.25)  # imports the op
    op = OPDEFS["scalefast::draw_mask"]
    waiting = lambda state, rows, *more: op._abstract_fn(state, rows, *more) if rows.sum().item() else None  # noqa: E731
    monkeypatch.setattr(op, "_init_fn", waiting)
    with pytest.raises(AssertionError, match="makes the host wait"), captured():
        kernels.draw_mask(rng, clips=8, probability=0.25)
    assert len(launches) == 0
