"""The launches of `sparse_infonce`, described before they run: what runs and what ships come from the same functions.

Shapes: `M` queries, `N` keys, `D` feature. These are the fused form's, and what both forms share; see `chunked.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..compilation.launch import Launch
from . import triton_kernels as tk

__all__ = [
    "SPENDTHRIFT",
    "Call",
    "Tiles",
    "fused_direction",
    "fused_forward",
    "launch_of",
    "query_launch",
    "slope_launch",
    "slope_tiles",
    "split_loop",
    "strength_of",
    "unweighted",
]


class Tiles(NamedTuple):
    """Rows that stay, rows a step of the loop; warps, stages of the pipeline, blocks that a processor holds."""

    stay: int
    step: int
    warps: int
    stages: int
    resident: int = 1


def launch_of(
    name: str, kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], constants: dict[str, Any], tiles: Tiles
) -> Launch:  # fmt: skip
    """A launch with the warps and stages of its tiles."""
    return Launch(
        kernel, grid, arguments, constants, tiles.warps, tiles.stages, name=f"sparse_infonce {name}"
    )


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


def unweighted(call: Call) -> tuple[Tensor, float]:
    """The same for directions: weight 1 where there is a positive."""
    power = 2.0**14 if call.shift else 1.0
    return torch.where(call.positives >= 0, power, 0.0).float(), 1.0 / power


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


def split_loop(rows: int, others: int, tiles: Tiles, device: torch.device) -> tuple[int, int]:
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


SPENDTHRIFT = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
"""Triton 3.9 spends some more registers than 3.7 on the widest tiles: steps of 64 would spill there."""


def _row_tiles(call: Call) -> Tiles:
    """For `row_kernel`: tiles that compile for sm_90 without spilling, see README."""
    if call.groups == 2:  # more statistics a row, but no gradient to accumulate
        return Tiles(64, 32, 4, 2, resident=2)
    return slope_tiles(call)


def slope_tiles(call: Call) -> Tiles:
    """For `slope_kernel`. Of two blocks on a processor, one's exponentials hide behind the other's products."""
    wide = call.q.element_size() == 4
    # Ids cost registers, too.
    step = 32 if wide or call.groups or (call.block_dim > 128 and SPENDTHRIFT) else 64
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
    parts, each = split_loop(m, n, tiles, call.q.device)
    own = torch.empty_like(loss)
    highest, total = loss.new_empty(2, parts, m)
    target, number = loss.new_empty(2, parts, m) if call.groups == 2 else (None, None)
    acc = loss.new_empty(parts, m, d) if direct else None
    dim = {"BLOCK_D": call.block_dim, "EVEN_D": call.even_dim, "PRECISION": "tf32"}
    label = _label(call)
    yield launch_of(
        f"positives, {label}", tk.positive_kernel, (triton.cdiv(m, 64),),
        (call.q, call.k, call.positives, own, m, n, d), {"BLOCK_M": 64, **dim}, Tiles(64, 64, 4, 1),
    )  # fmt: skip
    yield launch_of(
        f"queries, {label}", tk.row_kernel, (triton.cdiv(m, tiles.stay), parts),
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
    yield launch_of(
        f"combine, {label}", tk.combine_kernel, (triton.cdiv(m, rows),),
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
    tiles = slope_tiles(call)
    parts, each = split_loop(len(x), len(y), tiles, x.device)
    split = base.new_empty(parts, len(x), d) if parts > 1 else None
    launch = launch_of(
        f"{'keys' if keys else 'multi-positive queries'} backward, "
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
    strength, factor = unweighted(call)
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
    return launch_of(
        f"queries{' and temperature' if needs_t else ''} backward, {str(call.q.dtype)[6:]} {m} x {d}",
        tk.query_kernel, (triton.cdiv(m, rows),),
        (call.q, direction, weight, call.temperature, grad if needs_q else None, slope if needs_t else None, m, d),
        {"BLOCK_M": rows, "BLOCK_D": block, "GRADIENT": needs_q, "TEMPERATURE": needs_t}, Tiles(rows, 1, 4, 1),
    )  # fmt: skip
