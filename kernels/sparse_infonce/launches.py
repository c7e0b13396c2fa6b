"""The launches of `sparse_infonce`, described before they run: what runs and what ships come from the same functions.

Shapes: `M` queries, `N` keys, `D` feature. In the chunked form a matrix product writes a strip of logits at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from . import triton_kernels as tk

__all__ = [
    "STRIP_ELEMENTS",
    "Call",
    "Launch",
    "chunked_forward",
    "chunked_keys",
    "dense_launch",
    "fused_direction",
    "fused_forward",
    "query_launch",
    "slope_launch",
    "strength_of",
]

STRIP_ELEMENTS = 1 << 24
"""Logits of a chunked strip: 64 MB in fp32, and half as much again for its slopes in bf16."""


class Tiles(NamedTuple):
    """Rows that stay, rows a step of the loop; warps, stages of the pipeline, blocks that a processor holds."""

    stay: int
    step: int
    warps: int
    stages: int
    resident: int = 1


class Launch(NamedTuple):
    name: str
    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    tiles: Tiles

    def run(self) -> None:
        # Triton launches on the current device, whichever the tensors are on. Fusing a * b + c is stated because the
        # default changes from one Triton to the next.
        with torch.cuda.device_of(self.arguments[0]):
            self.kernel[self.grid](
                *self.arguments, **self.constants,
                num_warps=self.tiles.warps, num_stages=self.tiles.stages, enable_fp_fusion=True,
            )  # fmt: skip


class Call(NamedTuple):
    """The inputs that every launch needs, contiguous."""

    q: Tensor
    k: Tensor
    temperature: Tensor
    positives: Tensor
    query_groups: Tensor | None
    key_groups: Tensor | None
    groups: int
    """0: none; 1: keys of the query's group are left out; 2: they are positives."""

    @property
    def block_dim(self) -> int:
        return max(16, triton.next_power_of_2(self.q.shape[1]))

    @property
    def even_dim(self) -> bool:
        return self.block_dim == self.q.shape[1]

    @property
    def shift(self) -> int:
        return 15 if self.q.dtype == torch.float16 else 0


def strength_of(weight: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """Weights for the slopes of the keys' gradient, and the factor that the sum then wants."""
    factor = 1.0 / call.temperature
    if not call.shift:
        return weight, factor
    # fp16 ends at 6e-8, and a weight (1 / rows) times a probability (1 / keys) is often less.
    peak = weight.abs().max()
    return torch.where(peak > 0, weight / peak, weight) * 2.0**14, factor * peak * 2.0**-14


def _unweighted(call: Call) -> tuple[Tensor, float]:
    """The same for directions: weight 1 where there is a positive."""
    power = 2.0**14 if call.shift else 1.0
    return torch.where(call.positives >= 0, power, 0.0).float(), 1.0 / power


# The fused form.


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


@functools.cache
def _shared_memory(device: torch.device) -> int:
    """Bytes a block can have; an H100's for tensors without memory."""
    if device.type != "cuda":
        return 232_448
    found = torch.cuda.get_device_properties(device)
    return getattr(found, "shared_memory_per_block_optin", found.shared_memory_per_block)


def _parts(rows: int, others: int, tiles: Tiles, device: torch.device) -> tuple[int, int]:
    """Into how many parts the loop is split, and the steps in each.

    The cheapest by rounds of blocks on the processors, each with two steps' worth of start and end, and 3% a part for
    putting parts together. At most 4 parts, or what gives every processor two rounds: memory stays O((M + N) D).
    """
    blocks, steps = triton.cdiv(rows, tiles.stay), triton.cdiv(others, tiles.step)
    slots = _processors(device) * tiles.resident

    def cost(parts: int) -> float:
        return triton.cdiv(blocks * parts, slots) * (triton.cdiv(steps, parts) + 2) * (1 + 0.03 * parts)

    parts = min(range(1, min(steps, max(4, 2 * slots // blocks)) + 1), key=cost)
    each = triton.cdiv(steps, parts)
    return triton.cdiv(steps, each), each


_SPENDTHRIFT = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)


def _row_tiles(call: Call) -> Tiles:
    """For `row_kernel`: tiles that compile for sm_90 without spilling, see README."""
    if call.groups == 2:  # more statistics a row, but no gradient to accumulate
        return Tiles(64, 32, 4, 2, resident=2)
    return _slope_tiles(call)


def _slope_tiles(call: Call) -> Tiles:
    """For `slope_kernel`. Of two blocks on a processor, one's exponentials hide behind the other's products."""
    wide = call.q.element_size() == 4
    # Ids cost registers, and Triton 3.9 spends some more than 3.7 on the widest tile: steps of 64 would spill there.
    step = 32 if wide or call.groups or (call.block_dim > 128 and _SPENDTHRIFT) else 64
    if call.block_dim <= 128:
        return Tiles(64, step, 4, 2 if wide else 3, resident=2)
    if _shared_memory(call.q.device) < 200_000:
        return Tiles(32, 32, 4, 2) if wide else Tiles(64, 32, 4, 2)
    return Tiles(128, step, 8, 3 if step == 32 and not wide else 2)


def _label(call: Call) -> str:
    (m, d), n = call.q.shape, len(call.k)
    groups = ("", ", groups excluded", ", groups positive")[call.groups]
    return f"{str(call.q.dtype)[6:]} {m} x {n} x {d}{groups}"


def fused_forward(call: Call, out: tuple[Tensor, ...], wants_direction: bool) -> Iterator[Launch]:
    loss, top1, logit, base, count, direction = out
    (m, d), n = call.q.shape, len(call.k)
    direct = wants_direction and call.groups != 2
    tiles = _row_tiles(call)
    parts, each = _parts(m, n, tiles, call.q.device)
    own = torch.empty_like(loss)
    highest, total = loss.new_empty(2, parts, m)
    target, number = loss.new_empty(2, parts, m) if call.groups == 2 else (None, None)
    acc = loss.new_empty(parts, m, d) if direct else None
    dim = {"BLOCK_D": call.block_dim, "EVEN_D": call.even_dim, "PRECISION": "tf32"}
    label = _label(call)
    yield Launch(
        f"sparse_infonce positives, {label}", tk.positive_kernel, (triton.cdiv(m, 64),),
        (call.q, call.k, call.positives, own, m, n, d), {"BLOCK_M": 64, **dim}, Tiles(64, 64, 4, 1),
    )  # fmt: skip
    yield Launch(
        f"sparse_infonce queries, {label}", tk.row_kernel, (triton.cdiv(m, tiles.stay), parts),
        (
            call.q, call.k, call.positives, own, call.temperature, call.query_groups, call.key_groups,
            highest, total, target, number, acc, m, n, d, each,
        ),
        {
            "BLOCK_M": tiles.stay, "BLOCK_N": tiles.step, "EVEN_N": n % tiles.step == 0,
            "GROUPS": call.groups, "DIRECTION": direct, "SHIFT": call.shift, **dim,
        },
        tiles,
    )  # fmt: skip
    block = call.block_dim if direct else 16
    rows = max(1, 4096 // block)
    yield Launch(
        f"sparse_infonce combine, {label}", tk.combine_kernel, (triton.cdiv(m, rows),),
        (
            call.k, call.positives, own, call.temperature, highest, total, target, number, acc,
            loss, top1, logit, base, count if call.groups == 2 else None, direction if direct else None, m, d, parts,
        ),
        {"BLOCK_M": rows, "BLOCK_D": block, "GROUPS": call.groups, "DIRECTION": direct, "SHIFT": call.shift},
        Tiles(rows, 1, 4, 1),
    )  # fmt: skip


def slope_launch(
    call: Call, base: Tensor, count: Tensor, strength: Tensor, factor: Tensor, out: Tensor, *, keys: bool
) -> tuple[Launch, Tensor | None]:
    """The launch; and the parts to be summed if the loop is split, which otherwise writes to `out`."""
    x, y = (call.k, call.q) if keys else (call.q, call.k)
    d = x.shape[1]
    tiles = _slope_tiles(call)
    parts, each = _parts(len(x), len(y), tiles, x.device)
    split = base.new_empty(parts, len(x), d) if parts > 1 else None
    launch = Launch(
        f"sparse_infonce {'keys' if keys else 'multi-positive queries'} backward, "
        f"{_label(call)}",
        tk.slope_kernel, (triton.cdiv(len(x), tiles.stay), parts),
        (
            x, y, call.positives, base, count if call.groups == 2 else None, strength, factor, call.temperature,
            call.query_groups, call.key_groups, out if split is None else split, len(call.q), len(x), len(y), d, each,
        ),
        {
            "BLOCK_X": tiles.stay, "BLOCK_Y": tiles.step, "BLOCK_D": call.block_dim,
            "EVEN_Y": len(y) % tiles.step == 0, "EVEN_D": call.even_dim, "GROUPS": call.groups, "KEYS": keys,
            "PRECISION": "tf32",
        },
        tiles,
    )  # fmt: skip
    return launch, split


def fused_direction(call: Call, base: Tensor, count: Tensor) -> Tensor:
    """Directions of multi-positive queries, which need the softmax's sum before the first product."""
    strength, factor = _unweighted(call)
    out = base.new_empty(call.q.shape)
    scale = torch.full((), factor, device=base.device)
    launch, parts = slope_launch(call, base, count, strength, scale, out, keys=False)
    launch.run()
    return out if parts is None else parts.sum(0)


def query_launch(
    call: Call, direction: Tensor, weight: Tensor, grad: Tensor, slope: Tensor, needs_q: bool, needs_t: bool
) -> Launch:
    m, d = call.q.shape
    block = min(call.block_dim, 256)
    rows = max(1, 2048 // block)
    return Launch(
        f"sparse_infonce queries{' and temperature' if needs_t else ''} backward, {str(call.q.dtype)[6:]} {m} x {d}",
        tk.query_kernel, (triton.cdiv(m, rows),),
        (call.q, direction, weight, call.temperature, grad if needs_q else None, slope if needs_t else None, m, d),
        {"BLOCK_M": rows, "BLOCK_D": block, "GRADIENT": needs_q, "TEMPERATURE": needs_t}, Tiles(rows, 1, 4, 1),
    )  # fmt: skip


# The chunked form.


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in fp32, whatever a and b are."""
    if a.dtype == torch.float32:
        return torch.mm(a, b)
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else torch.mm(a.float(), b.float())


def dense_launch(
    s: Tensor, call: Call, rows: slice, first: int, weight: Tensor, count: Tensor,
    statistics: tuple[Tensor, ...], slope: Tensor | None, *, new: bool,
) -> Launch:  # fmt: skip
    loss, top1, logit, base = statistics
    m, n = s.shape
    return Launch(
        f"sparse_infonce {'statistics of' if new else 'slopes of'} a strip, {str(call.q.dtype)[6:]} {m} x {n}",
        tk.dense_kernel, (m,),
        (
            s, call.positives[rows], call.temperature, None if call.query_groups is None else call.query_groups[rows],
            call.key_groups, weight, loss, top1, logit, base, count if call.groups == 2 else None, slope,
            len(call.q), n, first,
        ),
        {"BLOCK": 2048, "GROUPS": call.groups, "STATISTICS": new, "SLOPE": slope is not None}, Tiles(1, 2048, 8, 1),
    )  # fmt: skip


def chunked_forward(call: Call, out: tuple[Tensor, ...], wants_direction: bool) -> None:
    loss, top1, logit, base, count, direction = out
    weight, factor = _unweighted(call)
    height = max(1, STRIP_ELEMENTS // len(call.k))
    with torch.autocast(call.q.device.type, enabled=False):
        for start in range(0, len(call.q), height):
            rows = slice(start, start + height)
            s = _product(call.q[rows], call.k.T)
            slope = torch.empty_like(s, dtype=call.q.dtype) if wants_direction else None
            found = (loss[rows], top1[rows], logit[rows], base[:, start:])  # rows of `base` stay M apart
            dense_launch(s, call, rows, 0, weight[rows], count[rows], found, slope, new=True).run()
            if slope is not None:
                direction[rows] = _product(slope, call.k) * factor


def chunked_keys(
    call: Call, base: Tensor, count: Tensor, strength: Tensor, factor: Tensor, grad: Tensor
) -> None:
    """Strips of keys here, so that no strip adds to what another wrote."""
    width = max(1, STRIP_ELEMENTS // len(call.q))
    with torch.autocast(call.q.device.type, enabled=False):
        for start in range(0, len(call.k), width):
            keys = call.k[start : start + width]
            s = _product(call.q, keys.T)
            slope = torch.empty_like(s, dtype=call.q.dtype)
            statistics = (base, base, base, base)  # only the last is read
            dense_launch(s, call, slice(None), start, strength, count, statistics, slope, new=False).run()
            grad[start : start + width] = _product(slope.T, call.q) * factor
