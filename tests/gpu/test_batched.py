"""Models trained at once on the GPU against each by itself there: the captured stack, and Triton's ops on it."""

from __future__ import annotations

import pytest
import torch

from scalefast import FeatureStore
from scalefast.training import load_run, pretrain, recommended
from scalefast.training.batched import pretrain_together


@pytest.mark.parametrize("target", ["fixed", "trained"])
def test_a_stack_is_its_runs(cuda, tmp_path, target):
    features = torch.randn(48, 16, 64, generator=torch.Generator().manual_seed(0))
    store = FeatureStore.create(tmp_path / "store", features=features)
    base = recommended().replace(
        epochs=5, batch_size=24, hidden_dim=64, head_dim=64, target_dim=64, target=target, log_every=1, precision="fp32"
    )  # fmt: skip
    changes = {"base": {}, "seed": {"seed": 3}, "mask": {"mask_ratio": 0.25, "temperature": 0.1}}
    configs = {name: base.replace(**change) for name, change in changes.items()}
    said: list[str] = []
    runs = {tmp_path / "stack" / name: config for name, config in configs.items()}
    assert pretrain_together(store, runs=runs, device="cuda", say=said.append) == {}
    assert said == []  # captured
    for name, config in configs.items():
        pretrain(store, out=tmp_path / name, config=config, device="cuda", progress=False)
        found, wanted = (load_run(folder).log() for folder in (tmp_path / "stack" / name, tmp_path / name))
        for one, other in zip(found, wanted, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
