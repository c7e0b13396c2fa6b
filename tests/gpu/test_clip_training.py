"""Training on clips on the GPU: a step as on the CPU, large batches in chunks, an unfrozen backbone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from scalefast.backbones import R3D, FrozenBackbone, R3DConfig
from scalefast.backbones.gradient_cache import backward_in_chunks
from scalefast.backbones.unfrozen import UnfrozenBackbone
from scalefast.cvrl import CVRLTask

CONFIG = R3DConfig(depth="10", width=0.25, num_frames=8, size=32, norm="group")


@dataclasses.dataclass
class Judged:
    loss: torch.Tensor


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 convolutions in fp32: by default cuDNN rounds their factors to TF32, ten bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def task() -> CVRLTask:
    torch.manual_seed(0)
    return CVRLTask(R3D(CONFIG), hidden_dim=32, hidden_layers=1, projection_dim=16).train()


def clips(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 8, 32, 32, generator=generator)


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.cpu() for name, p in module.named_parameters() if p.grad is not None}


def assert_close(got, want, share: float) -> None:
    assert got.keys() == want.keys() and got
    for name, value in want.items():
        assert (got[name] - value).abs().max() <= share * value.abs().max() + 1e-8, name


def step(device: torch.device, count: int, *, chunk: int | None) -> tuple[float, dict[str, torch.Tensor]]:
    module = task().to(device)
    losses = backward_in_chunks(
        module.encoder, clips(count).to(device), lambda z: module.losses(module.head(z)), chunk=chunk
    )
    return losses.loss.item(), gradients(module)


def test_a_step_is_that_of_the_cpu(cuda: torch.device) -> None:
    (loss, grads), (expected, there) = step(cuda, 32, chunk=None), step(torch.device("cpu"), 32, chunk=None)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert_close(grads, there, 5e-3)


@pytest.mark.large
def test_4096_clips_in_chunks_have_the_gradients_of_one_pass(cuda: torch.device) -> None:
    whole, parts = step(cuda, 4096, chunk=None), step(cuda, 4096, chunk=64)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert_close(parts[1], whole[1], 1e-4)


@pytest.mark.large
def test_memory_follows_the_chunk_and_not_the_batch(cuda: torch.device) -> None:
    peaks = []
    for count in (512, 2048):
        torch.cuda.reset_peak_memory_stats(cuda)
        before = torch.cuda.memory_allocated(cuda)
        step(cuda, count, chunk=32)
        peaks.append(torch.cuda.max_memory_allocated(cuda) - before - clips(count).nbytes)
    assert peaks[1] < 1.3 * peaks[0]


def test_dropout_is_drawn_again(cuda: torch.device) -> None:
    encoder = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 4)).to(
        cuda
    )
    rows, found = torch.randn(12, 8, device=cuda), []
    for cached in (False, True):
        encoder.zero_grad()
        torch.manual_seed(3)
        if cached:
            backward_in_chunks(encoder, rows, lambda z: Judged(z.pow(3).sum()), chunk=4)
        else:
            torch.cat([encoder(part) for part in rows.split(4)]).pow(3).sum().backward()
        found.append(gradients(encoder))
    assert_close(found[1], found[0], 1e-5)


def test_an_unfrozen_backbone_in_bf16(cuda: torch.device) -> None:
    found = []
    for chunk in (None, 5):
        model = R3D(CONFIG)
        unfrozen = UnfrozenBackbone(
            FrozenBackbone(model, spec=model.spec("own"), device=cuda, dtype="bf16"), last=2
        )
        batch = torch.randint(
            0, 256, (12, 8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        unfrozen.backward(batch, lambda z: Judged(z.pow(3).sum()), chunk=chunk)
        found.append(gradients(unfrozen))
    assert_close(found[1], found[0], 2e-2)
