"""A batch of 16,384 videos on one GPU: the fused loss holds no logits, which would take 68 GB in fp32."""

from __future__ import annotations

import pytest
import torch

from scalefast import SCALE, SCALEPretraining, kernels

VIDEOS, VIEWS, DIM = 16_384, 8, 768
LOGITS = (
    (2 * VIDEOS * VIEWS) * (2 * VIDEOS * VIEWS) // 4 * 4
)  # bytes in fp32: a quarter of the clips against all


@pytest.mark.large
def test_a_step_fits(cuda):
    torch.manual_seed(0)
    task = SCALEPretraining(SCALE(DIM)).to(cuda).train()
    features = torch.randn(VIDEOS, 2, VIEWS, DIM, device=cuda, dtype=torch.float16)
    positions = torch.rand(VIDEOS, 2, VIEWS, 7, device=cuda)
    rng = kernels.RandomState.create(0, rows=torch.arange(VIDEOS, device=cuda))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = task(features, positions, rng=rng).loss
    loss.backward()
    assert 0 < loss.item() < 20
    assert torch.cuda.max_memory_allocated() - before < LOGITS // 2
