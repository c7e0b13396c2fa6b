"""View sampling in Triton: the reference's clips, to the bit."""

from __future__ import annotations

import pytest
import torch

from scalefast import kernels
from scalefast.kernels import RandomState, philox
from scalefast.kernels.ops.dispatch import serves_triton
from scalefast.kernels.ops.view_sampling import reference

CUDA = torch.cuda.is_available()
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if CUDA else [])]
# videos, clips, feature, views, rows: one clip a set; primes; all clips taken; several slices of slots; no rows.
SHAPES = [
    (1, 2, 1, 1, [0]),
    (9, 16, 48, 8, [8, 0, 3, 3]),
    (5, 13, 7, 3, [4, 1]),
    (3, 40, 300, 20, [2]),
    (3, 67, 2, 30, [0, 2]),
    (3, 9, 384, 4, []),
]


def make(videos, clips, width, dtype, device):
    g = torch.Generator().manual_seed(3)
    bank = torch.randn(videos, clips, width, generator=g).to(device, dtype)
    return bank, torch.rand(videos, clips, 7, generator=g).to(device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_views_are_the_references(shape, dtype, device):
    videos, clips, width, views, rows = shape
    bank, positions = make(videos, clips, width, dtype, device)
    rows = torch.tensor(rows, dtype=torch.int64, device=device)
    assert serves_triton("sample_views", bank)
    for seed, step in ((0, 0), (2**61 + 5, 9)):
        rng = RandomState.create(seed, step=step, rows=rows)
        got = kernels.sample_views(bank, positions, rows, views=views, rng=rng)
        wanted = reference.sample_views(bank, positions, rows, views=views, rng=rng)
        for have, want in zip(got, wanted, strict=True):
            assert have.dtype == want.dtype
            assert torch.equal(have, want)


def test_equal_words_are_taken_by_index(device):
    """Row 33289 at seed 0 draws one word for two of its 512 clips."""
    row = 33289
    rows = torch.tensor([row], device=device)
    rng = RandomState.create(0, rows=rows)
    words = philox.uniform_bits(rng, site=philox.Site.VIEW, count=512)
    assert len(words.unique()) == 511
    clip = torch.arange(512.0, device=device).view(1, 512, 1)
    bank = clip.expand(row + 1, -1, 1)  # every video of the bank lies in the same memory
    features, _ = kernels.sample_views(bank, bank.expand(-1, -1, 7), rows, views=256, rng=rng)
    wanted = kernels.draw_views(rng, clips=512, views=256)
    assert torch.equal(features.squeeze(-1).long(), wanted)


def test_more_clips_than_a_program_ranks_are_the_references(device):
    bank, positions = make(2, 600, 3, torch.float32, device)
    rows = torch.tensor([1], device=device)
    rng = RandomState.create(0, rows=rows)
    got = kernels.sample_views(bank, positions, rows, views=5, rng=rng)
    wanted = reference.sample_views(bank, positions, rows, views=5, rng=rng)
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


def test_a_bank_that_wants_a_gradient_gets_one(device):
    bank, positions = make(3, 8, 4, torch.float32, device)
    rows = torch.arange(3, device=device)
    features, _ = kernels.sample_views(
        bank.requires_grad_(), positions, rows, views=4, rng=RandomState.create(0, rows=rows).state
    )
    features.sum().backward()
    assert torch.equal(bank.grad, torch.ones_like(bank))


def test_strided_bank(device):
    whole = torch.randn(6, 20, 32, device=device)
    positions = torch.randn(7, 10, 3, device=device).permute(2, 1, 0)  # [3, 10, 7]
    bank = whole[::2, ::2, ::4]
    rows = torch.tensor([2, 0], device=device)
    rng = RandomState.create(4, rows=rows)
    got = kernels.sample_views(bank, positions, rows, views=5, rng=rng)
    for have, want in zip(got, reference.sample_views(bank, positions, rows, views=5, rng=rng), strict=True):
        assert torch.equal(have, want)


def test_rows_outside_the_bank(device, monkeypatch):
    """Refused where they can be seen, and never other memory where they cannot."""
    from scalefast.kernels.ops.view_sampling import triton as fused

    bank, positions = make(3, 4, 5, torch.float32, device)
    rows = torch.tensor([3, 1, -1], device=device)
    state = RandomState.create(0, rows=rows).state
    features, places = fused.sample_views(bank, positions, rows, views=2, state=state)
    assert features[[0, 2]].isnan().all() and places[[0, 2]].isnan().all()
    assert not features[1].isnan().any() and not places[1].isnan().any()
    monkeypatch.setenv("SCALEFAST_CHECKS", "1")
    with pytest.raises(ValueError, match=r"rows must be in \[0, 3\); got -1 to 3"):
        kernels.sample_views(bank, positions, rows, views=2, rng=state)
    with pytest.raises(ValueError, match="the bank has 4"):
        kernels.sample_views(bank, positions, rows, views=3, rng=state)


def test_opcheck_and_compile(device):
    bank, positions = make(4, 8, 5, torch.float32, device)
    rows = torch.tensor([3, 0], device=device)
    state = RandomState.create(1, rows=rows).state

    def step(rows):
        return kernels.sample_views(bank, positions, rows, views=2, rng=state)

    eager = step(rows)
    torch.library.opcheck(torch.ops.scalefast.sample_views_forward.default, (bank, positions, rows, state, 2))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(rows)
    assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
def test_captured_step_draws_anew(device):
    bank, positions = make(100, 16, 768, torch.bfloat16, device)
    rows = torch.randperm(100, device=device)[:64]
    rng = RandomState.create(8, rows=rows)
    kernels.sample_views(bank, positions, rows, views=8, rng=rng)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = kernels.sample_views(bank, positions, rows, views=8, rng=rng)
    for step in (1, 2):
        rng.state[1] = step
        graph.replay()
        wanted = reference.sample_views(bank, positions, rows, views=8, rng=rng)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
