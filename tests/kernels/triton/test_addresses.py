"""Addresses beyond 2^31: the last program of every kernel on tensors too large for any machine here, by `guards.py`."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from scalefast.kernels.ops.compilation.launch import Launch
from scalefast.kernels.ops.philox import triton as philox
from scalefast.kernels.ops.set_attention import triton as attention
from scalefast.kernels.ops.set_embedding import triton as embedding
from scalefast.kernels.ops.set_embedding import triton_embed
from scalefast.kernels.ops.sparse_infonce import launches as infonce
from scalefast.kernels.ops.sparse_infonce import triton_symmetric as symmetric
from scalefast.kernels.ops.sparse_infonce.launches import Call
from scalefast.kernels.ops.sparse_infonce.unit_rows import unit_launches
from scalefast.kernels.ops.view_sampling import triton as views

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's")
BIG = 1 << 31


@triton.jit
def narrow(p_out, stride):
    tl.store(p_out + tl.program_id(0) * stride, 0.0)


def meta(*size, dtype=torch.float16):
    return torch.empty(*size, dtype=dtype, device="meta")


def quarters(rows, others, tiles, device):
    """In `split_loop`'s place: parts of four steps."""
    return triton.cdiv(others, 4 * tiles.step), 4


def last(guards, launch, **values):
    """The largest element that the last program touches."""
    return guards.run_program(
        launch, tuple(n - 1 for n in launch.grid), {f"p_{k}": v for k, v in values.items()}
    )


@pytest.fixture(autouse=True)
def without_memory(poison, monkeypatch):
    """The tensors are never filled."""
    monkeypatch.undo()


def numbers(*size):
    return meta(*size, dtype=torch.int64)


def test_the_bank_of_kinetics(guards):
    bank, positions = meta(240_000, 16, 768), meta(240_000, 16, 7, dtype=torch.float32)
    launch, _ = views._launch(bank, positions, numbers(512), numbers(2), 8)
    assert last(guards, launch, rows=239_999) > BIG


def test_set_embedding(guards, monkeypatch):
    x, token = meta(1_200_000, 8, 256), meta(256, dtype=torch.float32)
    mask = meta(1_200_000, 8, dtype=torch.bool)
    forward, out, _ = embedding.embed_launch(x, x, mask, token, token)
    drawn, *_ = embedding.embed_launch(
        x, x, None, token, token, state=numbers(2), rows=numbers(1_200_000), threshold=1 << 30
    )
    assert last(guards, forward) > BIG and last(guards, drawn) > BIG
    # A program a tile, so that the last one has the last tile.
    monkeypatch.setattr(triton_embed, "_PROGRAMS", 1 << 30)
    dtypes = (torch.float16, torch.float32, torch.float32)
    (shares, _), _ = triton_embed.backward_launches(out, mask, dtypes, wants_x=True, wants_position=True)
    assert last(guards, shares) > BIG


def test_gather(guards):
    tokens, mask = meta(1_200_000, 8, 256), meta(1_200_000, 8, dtype=torch.bool)
    total = mask.numel()
    count, counts = embedding.count_launch(mask)
    last(guards, count, mask=1)
    place, out = embedding.place_launch(tokens, mask, counts, capacity=total)
    blocks = triton.cdiv(total, place.constants["ROWS"])
    found = guards.run_program(place, (blocks - 1, 0), {"p_mask": 1, "p_counts": 1024})
    assert found > BIG
    assert last(guards, place, counts=0) > BIG  # padding
    spread, _ = embedding.spread_launch(out[0], out[3], sets=1_200_000, clips=8)
    assert last(guards, spread, rank=total - 1) > BIG


@pytest.mark.parametrize("packed", [False, True])
def test_set_attention(guards, packed):
    sets, tokens = 500_000, 9
    whole = meta(sets * tokens, 3, 8, 32) if packed else meta(sets, tokens, 3, 8, 32)
    q, k, v = whole.unbind(-3)
    grad, rows = meta(*q.shape), numbers(sets)
    where = (None,) * 4
    if packed:
        tiles, owners = numbers(sets // 7 + 2), meta(sets * tokens, dtype=torch.int32)
        where = (None, tiles, owners, numbers(sets + 1))
    rest = ((*where, numbers(2), rows), tokens, 0.1, 1)
    values = {"p_tiles": sets * tokens - 1, "p_owners": sets - 1, "p_offsets": sets * tokens - tokens}
    forward = attention._launch(attention.forward_kernel, (q, k, v), (grad,), *rest)
    backward = attention._launch(attention.backward_kernel, (grad, q, k, v), whole.unbind(-3), *rest)
    for launch in (forward, backward):
        reached = guards.run_program(launch, (launch.grid[0] - 1,), values if packed else {})
        assert packed or reached > BIG


@pytest.mark.parametrize("groups", [0, 1])
def test_contrastive_loss(guards, groups, monkeypatch):
    """65,536 squared, in parts of four steps: [256, 65536, 256] partial gradients."""
    monkeypatch.setattr(infonce, "split_loop", quarters)
    m, d = 65_536, 256
    q, t = meta(m, d), meta((), dtype=torch.float32)
    ids = numbers(m) if groups else None
    call = Call(q, q, t, numbers(m), ids, ids, groups)
    floats = [meta(m, dtype=torch.float32) for _ in range(3)]
    base, direction = meta(2, m, dtype=torch.float32), meta(m, d, dtype=torch.float32)
    out = (floats[0], meta(m, dtype=torch.bool), floats[1], base, floats[2], direction)
    with torch.device("meta"):
        _, row, combine = infonce.fused_forward(call, out, True)
        slope, _ = infonce.slope_launch(call, base, floats[2], floats[0], t, meta(m, d), keys=True)
    values = {"positives": m - 1, "temperature": 1.0, "sum": 1.0}
    assert last(guards, row, **values) > BIG and last(guards, slope, **values) > BIG
    assert last(guards, combine, **values) > BIG


def test_symmetric_loss(guards, monkeypatch):
    monkeypatch.setattr(symmetric, "split_loop", quarters)
    m, d = 65_536, 256
    q, t = meta(m, d), meta((), dtype=torch.float32)
    call = symmetric._call(q, q, t, numbers(m))
    with torch.device("meta"):
        out = symmetric._outputs(q)
        launches = list(symmetric._forward_launches(call, out))
        pair, _ = symmetric._pair_launch(call, q, q, numbers(m), out[0], out[0], out[0], meta(m, d))
    for launch in launches[:-1]:
        last(guards, launch, positives=m - 1, own=0.5, temperature=1.0)
    assert last(guards, pair, own=m - 1, temperature=1.0) > BIG


def test_rows_of_length_one_and_dropout(guards):
    forward, backward = unit_launches(meta(20_000_000, 256))
    assert last(guards, forward) > BIG and last(guards, backward) > BIG
    launch, _ = philox._launch(meta(900_000, 17, 512), numbers(2), numbers(900_000), 18, 0.1)
    assert last(guards, launch) > BIG


def test_the_guard_sees_what_lies_outside(guards):
    """A mask left out of a load, and an offset in 32 bits."""
    launch, _ = philox._launch(meta(3, 1000), numbers(2), numbers(3), 18, 0.1)
    wrong = Launch(
        launch.kernel, launch.grid, (*launch.arguments[:-1], launch.arguments[-1] + 1), launch.constants, 4
    )
    last(guards, launch)
    with pytest.raises(IndexError, match=r"touches byte 24 of 24 given"):
        last(guards, wrong)
    with pytest.raises(IndexError, match="given to it"):
        last(guards, Launch(narrow, (1 << 20,), (meta(1 << 32), 4096), {}, 1))
