"""Mixed precision follows fp32: every step's loss within 1%, on the same draws, to the end of a run; and the loss of
the same weights within a thousandth, so that it is training, not a loss's own rounding, that may part the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast import FeatureStore, SCALEPretraining
from scalefast.pretraining import PretrainingLosses
from scalefast.training import PretrainConfig, load_run, pretrain


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """96 videos in 12 groups, so that there is something to learn and something to confuse."""
    generator = torch.Generator().manual_seed(4)
    group = torch.randn(12, 1, 64, generator=generator).repeat(8, 1, 1)
    video = torch.randn(96, 1, 64, generator=generator)
    features = group + 0.5 * video + 0.5 * torch.randn(96, 16, 64, generator=generator)
    return FeatureStore.create(tmp_path_factory.mktemp("stores") / "groups", features=features.half())


@pytest.fixture(scope="module")
def config() -> PretrainConfig:
    """90 steps with dropout, in widths at which bf16's rounding is felt."""
    return PretrainConfig(
        epochs=30, batch_size=32, hidden_dim=64, head_dim=256, target_dim=256, projection_dim=64,
        learning_rate=1e-3, seed=5, log_every=1,
    )  # fmt: skip


def losses(store: FeatureStore, out: Path, config: PretrainConfig) -> torch.Tensor:
    """Loss of every step."""
    pretrain(store, out=out, config=config, progress=False)
    return torch.tensor([line["loss"] for line in load_run(out).log()], dtype=torch.float64)


def test_every_steps_loss_is_that_of_fp32_within_a_hundredth(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path
) -> None:
    exact = losses(store, tmp_path / "fp32", config.replace(precision="fp32"))
    mixed = losses(store, tmp_path / "bf16", config.replace(precision="bf16"))
    other = losses(store, tmp_path / "other", config.replace(precision="fp32", seed=6))
    assert len(exact) == 90
    assert exact[-10:].mean() < 0.75 * exact[:10].mean()  # it learns: the curve is no flat line
    assert (mixed / exact - 1).abs().max() < 0.01
    assert (other / exact - 1).abs().max() > 0.01  # another seed is told apart, so the bound says something
    assert not torch.equal(mixed, exact)


def test_the_loss_of_the_same_weights_is_that_of_fp32_within_a_thousandth(
    store: FeatureStore, config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, rounded = SCALEPretraining.forward, []

    def both(task: SCALEPretraining, *args: Any, **options: Any) -> PretrainingLosses:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            rounded.append(forward(task, *args, **options).loss.double())
        return forward(task, *args, **options)

    monkeypatch.setattr(SCALEPretraining, "forward", both)
    exact = losses(store, tmp_path / "fp32", config.replace(precision="fp32"))
    differences = (torch.stack(rounded) / exact - 1).abs()
    assert len(differences) == 90
    assert 0 < differences.max() < 0.001
