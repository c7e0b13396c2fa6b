"""How fast do features of clips become vectors of videos, beside the authors' form (fp32, eager, 512 at a time)?

Ours also finds the spread, the course over time and the largest value over the clips and checks for NaN. Every clip
has a position of its own; where a store states none, all videos have the same, which ours embeds once.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.evaluation import represent


@pytest.fixture(scope="module")
def plain_tokens():
    """The model written plainly, of benchmarks/programs/train_step.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "programs"))
        import train_step

        yield train_step.plain_tokens


def test_embedding(benchmark, side_by_side, smaller, plain_tokens, tmp_path):
    videos, dim = (32, 32) if smaller else (2048, 768)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(videos, 16, dim, generator=generator).half()
    drawn = torch.rand(videos, 16, 7, generator=generator)
    drawn[..., 5:] = drawn[..., 5:].sort(-1).values
    store = FeatureStore.create(tmp_path / "store", features=features, positions=drawn)
    unplaced = FeatureStore.create(tmp_path / "unplaced", features=features)
    torch.manual_seed(0)
    model = SCALE(dim).eval()

    @torch.no_grad()
    def authors():
        parts = []
        for start in range(0, videos, 512):
            rows = slice(start, start + 512)
            x, positions = store.features[rows].float(), store.positions[rows].float()
            tokens = plain_tokens(model, x, positions)
            cls = tokens[:, :1].expand(-1, 16, -1)
            parts.append(torch.cat([x, tokens[:, 1:], cls], 2).mean(1))
        return torch.cat(parts)

    def ours(dtype, videos=store):
        return lambda: represent(model, videos, device="cpu", dtype=dtype).ensemble

    expected = authors()
    for dtype, share in (("fp32", 1e-4), ("bf16", 2e-2)):
        assert (ours(dtype)() - expected).abs().max() <= share * expected.abs().max()
    benchmark.extra_info.update(videos=videos, threads=torch.get_num_threads(), load=os.getloadavg()[0])
    contenders = {
        "ours, no positions stated": ours("bf16", unplaced),
        "ours, fp32": ours("fp32"),
        "authors' form": authors,
    }
    best = side_by_side.race(benchmark, ours("bf16"), contenders, rounds=3)
    benchmark.extra_info["videos_per_second"] = {name: videos / seconds for name, seconds in best.items()}
