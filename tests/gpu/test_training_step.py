"""One training step on the GPU against the same step on the CPU: same draws, same loss, same gradients."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from scalefast import SCALE, SCALEPretraining, kernels
from scalefast.training import step

B, V, D, CLIPS = 24, 8, 96, 16


@pytest.fixture
def task() -> SCALEPretraining:
    torch.manual_seed(0)
    return SCALEPretraining(SCALE(feature_dim=D, hidden_dim=64, dropout=0.1), head_dim=256, target_dim=256)


@pytest.fixture
def bank() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(40, CLIPS, D, generator=generator)
    return features, torch.rand(40, CLIPS, 7, generator=generator)


def views(bank, device: torch.device, *, step: int):
    """The step's batch and its random state, on a device."""
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(2))[:B].to(device)
    rng = kernels.RandomState.create(7, step=step, rows=rows)
    features, positions = (part.to(device) for part in bank)
    return *kernels.sample_views(features, positions, rows, views=V, rng=rng), rng


def losses_and_gradients(
    task: SCALEPretraining, bank, device: torch.device, *, step: int = 3, dtype: torch.dtype | None = None
):
    task = copy.deepcopy(task).to(device).train()
    features, positions, rng = views(bank, device, step=step)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        losses = task(features, positions, rng=rng)
    losses.loss.backward()
    gradients = {name: weight.grad.cpu() for name, weight in task.named_parameters()}
    return {name: getattr(losses, name).detach().cpu() for name in vars(losses)}, gradients


def assert_close(found: torch.Tensor, expected: torch.Tensor, *, share: float) -> None:
    """Relative to the largest entry: gradients of InfoNCE are small, an absolute bound would pass zeros."""
    assert (found - expected).abs().max() <= share * expected.abs().max()


def test_every_op_says_who_serves_it_on_the_gpu(cuda):
    served = kernels.backend("cuda")
    assert {"embed_sets", "gather_masked", "set_attention", "sparse_infonce", "sample_views"} <= set(served)
    assert all(how.reason for how in served.values())


def test_views_are_the_same_on_both_devices(cuda, bank):
    on_cpu, on_gpu = views(bank, torch.device("cpu"), step=5), views(bank, cuda, step=5)
    assert torch.equal(on_cpu[0], on_gpu[0].cpu())
    assert torch.equal(on_cpu[1], on_gpu[1].cpu())


def test_losses_and_gradients_are_those_of_the_cpu(cuda, task, bank):
    """Masks and dropout included: they are drawn from (seed, step, row), not from a device's generator."""
    losses, gradients = losses_and_gradients(task, bank, cuda)
    expected, expected_gradients = losses_and_gradients(task, bank, torch.device("cpu"))
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
    for name, gradient in expected_gradients.items():
        assert_close(gradients[name], gradient, share=1e-3)


def test_steps_differ_and_a_repeated_step_does_not(cuda, task, bank):
    first, again = (losses_and_gradients(task, bank, cuda, step=3) for _ in range(2))
    other, _ = losses_and_gradients(task, bank, cuda, step=4)
    assert torch.equal(first[0]["loss"], again[0]["loss"])
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])
    assert not torch.equal(first[0]["loss"], other["loss"])


def test_bf16_autocast_gives_nearly_the_same_loss(cuda, task, bank):
    expected, _ = losses_and_gradients(task, bank, cuda)
    losses, gradients = losses_and_gradients(task, bank, cuda, dtype=torch.bfloat16)
    torch.testing.assert_close(losses["loss"].float(), expected["loss"], rtol=2e-2, atol=2e-2)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_training_on_the_gpu_lowers_the_loss(cuda, task, bank):
    task = task.to(cuda).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    history = []
    for number in range(60):
        features, positions, rng = views(bank, cuda, step=number)
        loss = task(features, positions, rng=rng).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-10:]) < 0.8 * sum(history[:10])


def test_a_whole_step_is_captured_and_its_replays_are_the_eager_steps(cuda, task, bank):
    """Views, forward and backward in one CUDA graph that advances its own step: nothing in it waits for the host."""
    expected = [losses_and_gradients(task, bank, cuda, step=number) for number in (3, 4, 5)]
    task = task.to(cuda).train()
    features, positions = (part.to(cuda) for part in bank)
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(2))[:B].to(cuda)
    state = torch.tensor([7, 0], device=cuda)

    def take() -> torch.Tensor:
        rng = kernels.RandomState(state, rows)
        loss = task(*kernels.sample_views(features, positions, rows, views=V, rng=rng), rng=rng).loss
        task.zero_grad(set_to_none=False)
        loss.backward()
        state[1] += 1
        return loss

    replay = step.capture_graph(take)
    state[1] = 3
    for losses, gradients in expected:
        loss = replay().detach()
        torch.testing.assert_close(loss.cpu(), losses["loss"], rtol=1e-6, atol=1e-6)
        for name, weight in task.named_parameters():
            assert_close(weight.grad.cpu(), gradients[name], share=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trainers_captured_steps_are_its_eager_ones(cuda, task, bank, precision, monkeypatch):
    """The trainer's own step on its own bank: 12 steps replayed leave the weights of 12 eager ones."""
    from scalefast.training.bank import Batch, ResidentBank
    from scalefast.training.config import PretrainConfig
    from scalefast.training.distributed import World
    from scalefast.training.sampler import BatchPlan
    from scalefast.training.schedule import build_optimizer

    def train(wish: str) -> tuple[list[float], torch.Tensor]:
        monkeypatch.setenv("SCALEFAST_CUDA_GRAPHS", wish)
        trained, said = copy.deepcopy(task).to(cuda).train(), []
        features, positions = (part.to(cuda) for part in bank)
        session = SimpleNamespace(
            config=PretrainConfig(views=V, seed=5, precision=precision, clip_grad_norm=1.0),
            world=World(rank=0, size=1, device=cuda),
            plan=BatchPlan(num_videos=40, batch_size=B, epochs=12, seed=5),
            bank=ResidentBank(features=features, positions=positions, facts={}, world=None),
            task=trained,
            optimizer=build_optimizer(trained, learning_rate=1e-3, weight_decay=1e-4, captured=True),
            progress=SimpleNamespace(say=said.append),
            autocast=torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"),
            start=3,
        )
        take = step.Step(session)
        losses = []
        for number in range(12):
            rows = torch.randperm(40, generator=torch.Generator().manual_seed(number))[:B].to(cuda)
            losses.append(take(Batch(rows), learning_rate=1e-3 / (1 + number)).loss.item())
        assert len(said) == (wish == "0"), said
        return losses, torch.cat([weight.detach().flatten() for weight in trained.parameters()])

    (replayed, weights), (eager, expected) = train("1"), train("0")
    assert replayed == pytest.approx(eager, rel=1e-5)
    assert_close(weights, expected, share=1e-4)
    again, same = train("1")
    assert again == replayed and torch.equal(same, weights)


@pytest.mark.large
def test_a_streamed_run_is_captured_and_leaves_the_weights_of_a_resident_one(cuda, tmp_path):
    """Batches copied from page-locked buffers beside the replays, through the store and the whole trainer."""
    pytest.importorskip("safetensors", reason="a run folder needs safetensors, which this machine lacks")
    from scalefast import FeatureStore
    from scalefast.training import PretrainConfig, pretrain

    generator = torch.Generator().manual_seed(0)
    store = FeatureStore.create(
        tmp_path / "store", features=torch.randn(90, CLIPS, D, generator=generator).half()
    )
    config = PretrainConfig(epochs=9, batch_size=20, hidden_dim=64, head_dim=128, target_dim=128, seed=4)
    for kind in ("resident", "stream"):
        result = pretrain(store, out=tmp_path / kind, config=config, bank=kind, device=cuda, progress=False)
        assert not [note for note in result.notes if "not captured" in note]
    for name in ("pretraining.safetensors", "log.jsonl"):
        assert (tmp_path / "stream" / name).read_bytes() == (tmp_path / "resident" / name).read_bytes()
