"""A bf16 run begins in fp32: which steps, with what memory, captured or not, alone or with others, resumed or not."""

from __future__ import annotations

import contextlib

import pytest
import torch

from scalefast import SCALE, SCALEPretraining
from scalefast.training import PretrainConfig, first_steps, load_run, pretrain, step
from scalefast.training.first_steps import FP32_STEPS, fp32_forward, starts_in_fp32


@pytest.fixture
def mixed(config: PretrainConfig) -> PretrainConfig:
    """12 steps in bf16, each with a line in the log."""
    return config.replace(precision="bf16", log_every=1)


def curve(store, out, config, **options):
    pretrain(store, out=out, config=config, progress=False, **options)
    return [line["loss"] for line in load_run(out).log()]


def test_the_first_steps_are_those_of_fp32_to_the_bit(store, mixed, tmp_path) -> None:
    exact = curve(store, tmp_path / "fp32", mixed.replace(precision="fp32"))
    rounded = curve(store, tmp_path / "bf16", mixed)
    assert len(exact) == 12 > FP32_STEPS
    assert rounded[:FP32_STEPS] == exact[:FP32_STEPS]
    assert all(a != b for a, b in zip(exact[FP32_STEPS:], rounded[FP32_STEPS:], strict=True))


def test_without_them_the_second_loss_is_another(store, mixed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(first_steps, "FP32_STEPS", 0)
    exact = curve(store, tmp_path / "fp32", mixed.replace(precision="fp32"))
    rounded = curve(store, tmp_path / "bf16", mixed)
    assert all(a != b for a, b in zip(exact, rounded, strict=True))


def test_which_steps_they_are() -> None:
    steps = range(FP32_STEPS + 3)
    assert [n for n in steps if starts_in_fp32(n, precision="bf16")] == list(range(FP32_STEPS))
    assert not any(starts_in_fp32(n, precision="fp32") for n in steps)


@pytest.mark.parametrize("count", [10, 6], ids=["among them", "after them"])
def test_a_run_resumed_after_step_8_changes_at_the_same_step(
    store, mixed, tmp_path, count, monkeypatch
) -> None:
    monkeypatch.setattr(first_steps, "FP32_STEPS", count)
    config = mixed.replace(checkpoint_every=4)
    whole = curve(store, tmp_path / "whole", config)
    folder = tmp_path / "resumed"
    curve(store, folder, config)
    (folder / "pretraining.safetensors").unlink()
    max((folder / "checkpoints").iterdir()).unlink()
    result = pretrain(store, out=folder, config=config, resume=True, progress=False)
    assert result.resumed_from == 8
    assert [line["loss"] for line in load_run(folder).log()] == whole
    expected = (tmp_path / "whole" / "pretraining.safetensors").read_bytes()
    assert (folder / "pretraining.safetensors").read_bytes() == expected


def test_a_capture_waits_for_them(store, mixed, tmp_path, monkeypatch) -> None:
    """As if on CUDA: warm-up steps are taken, the captured one is not, replays are."""
    counts = {"warm-up": 0, "replays": 0}

    def capture(compute):
        for _ in range(step._WARM_UP):
            compute()
            counts["warm-up"] += 1

        def replay():
            counts["replays"] += 1
            return compute()

        return replay

    with monkeypatch.context() as patch:
        patch.setattr(step, "captures", lambda **_: (True, ""))
        patch.setattr(step, "capture_graph", capture)
        captured = curve(store, tmp_path / "captured", mixed)
    assert counts == {"warm-up": step._WARM_UP, "replays": 12 - FP32_STEPS}
    assert captured == curve(store, tmp_path / "eager", mixed)


def test_models_trained_at_once_begin_so_too(store, mixed, tmp_path) -> None:
    from scalefast.training.batched import pretrain_together

    curves = {}
    for precision in ("fp32", "bf16"):
        runs = {
            tmp_path / f"{precision}-{t}": mixed.replace(precision=precision, temperature=t)
            for t in (0.1, 0.2)
        }
        assert not pretrain_together(store, runs=runs)
        curves[precision] = [[line["loss"] for line in load_run(out).log()] for out in runs]
    for exact, rounded in zip(curves["fp32"], curves["bf16"], strict=True):
        assert rounded[:FP32_STEPS] == exact[:FP32_STEPS]
        assert rounded[FP32_STEPS:] != exact[FP32_STEPS:]


def kept(task, inputs, *, context) -> tuple[int, torch.Tensor, list[torch.Tensor]]:
    """Bytes that a forward pass keeps for the backward pass (weights aside), its loss and the gradients."""
    weights = {p.untyped_storage().data_ptr() for p in task.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), context:
        loss = task(**inputs).loss
    size = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    grads = torch.autograd.grad(loss, list(task.parameters()))
    return size, loss.detach(), list(grads)


@pytest.mark.parametrize("ragged", [False, True], ids=["full sets", "ragged sets"])
def test_less_is_kept_and_the_gradients_are_the_same(ragged, monkeypatch) -> None:
    monkeypatch.setattr(first_steps, "_ROWS", 37)  # a head in several pieces, the last a smaller one
    generator = torch.Generator().manual_seed(1)
    task = SCALEPretraining(SCALE(48, hidden_dim=64), head_dim=256, target_dim=128).train()
    inputs = {
        "features": torch.randn(24, 2, 5, 48, generator=generator),
        "positions": torch.rand(24, 2, 5, 7, generator=generator),
        "lengths": torch.randint(1, 6, (24, 2), generator=generator) if ragged else None,
        "rng": torch.tensor([3, 4]),
    }
    plain, loss, exact = kept(task, inputs, context=contextlib.nullcontext())
    half, rounded_loss, _ = kept(task, inputs, context=torch.autocast("cpu", dtype=torch.bfloat16))
    few, same_loss, grads = kept(task, inputs, context=fp32_forward(task))
    assert few < half < plain
    torch.testing.assert_close(same_loss, loss, rtol=1e-6, atol=0.0)
    assert rounded_loss != loss
    for gradient, expected in zip(grads, exact, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_task_is_as_before_afterwards_whatever_happens() -> None:
    task = SCALEPretraining(SCALE(16, hidden_dim=32), head_dim=32, target_dim=32)
    before = {name: part.forward for name, part in task.named_modules()}
    with pytest.raises(ZeroDivisionError), fp32_forward(task):
        assert task.set_head.forward != before["set_head"]
        raise ZeroDivisionError
    assert {name: part.forward for name, part in task.named_modules()} == before
