"""Heads trained with labels, and the linear probe's penalties, at once on the GPU against one after another there."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from scalefast import SCALE
from scalefast.evaluation import fit_linear_probe
from scalefast.evaluation._fit import train_head
from scalefast.evaluation._heads import AttentionPooling, AttentiveProbe, ClipMLP, ScaleClassifier
from scalefast.evaluation._logits import video_logits
from scalefast.evaluation._stack import stacks_of, train_stack
from scalefast.evaluation._training import ClipSets, Training

VIDEOS, CLIPS, W, C = 48, 6, 64, 4
GRID = [
    Training(learning_rate=rate, weight_decay=1e-2, epochs=2, batch_size=24, views=4) for rate in (1e-3, 3e-3)
]


@pytest.mark.parametrize("kind", ["mlp", "attention", "attentive", "scale"])
def test_a_stack_is_its_heads(cuda, kind):
    random = torch.Generator().manual_seed(0)
    target = (torch.arange(VIDEOS) % C).to(cuda)
    rows = torch.randn(C, W, generator=random)[target.cpu().repeat_interleave(CLIPS)]
    rows = (rows + torch.randn(len(rows), W, generator=random)).to(cuda)
    positions = torch.rand(len(rows), 7, generator=random).to(cuda)
    sets = ClipSets(rows=rows, positions=positions, lengths=torch.full((VIDEOS,), CLIPS))
    model = SCALE(feature_dim=W, hidden_dim=64, num_layers=1, dropout=0.1).to(cuda)
    heads = {
        "mlp": partial(ClipMLP, rows, widths=(64, 32)),
        "attention": partial(AttentionPooling, rows),
        "attentive": partial(AttentiveProbe, rows),
        "scale": partial(ScaleClassifier, rows, model=model),
    }
    how = {"num_classes": C, "seed": 1}
    given = [(heads[kind], sets)]
    assert stacks_of(given, [GRID], **how) == [[(0, 0), (0, 1)]]
    every = torch.arange(VIDEOS)
    for dtype, tolerance in ((torch.float32, 2e-2), (torch.bfloat16, 0.2)):
        stack = train_stack(given, target, every, [(0, one) for one in GRID], **how, dtype=dtype)
        for training, head in zip(GRID, stack, strict=True):
            alone = train_head(*given[0], target, every, training, **how, dtype=dtype)
            found, wanted = (video_logits(one, sets, dtype=dtype)[0] for one in (head, alone))
            assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_penalties_at_once_are_those_in_turn(cuda):
    random = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 5
    x = torch.randn(5, 16, generator=random)[y] + 1.5 * torch.randn(400, 16, generator=random)
    probes = [fit_linear_probe(x.to(cuda), y.to(cuda), order=order) for order in ("at_once", "in_turn")]
    for one, other in zip(*(probe.scores for probe in probes), strict=True):
        assert one.accuracy == pytest.approx(other.accuracy, abs=2.01 / 80)
        assert one.loss == pytest.approx(other.loss, abs=5e-2)
    assert all(probe.gradient < 1e-4 for probe in probes)
