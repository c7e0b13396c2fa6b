"""Launches of the Triton kernels of `sparse_infonce`, and their registration with torch.

Shapes: `M` queries, `N` keys, `D` feature. Two forms, chosen by `plan`: "fused" keeps a tile of logits in registers,
"chunked" lets a matrix product write a strip of logits and a kernel turn it into slopes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
import triton
from torch import Tensor

from ..compilation import Shipped
from . import triton_kernels as tk
from .reference import RowStatistics

__all__ = ["Plan", "infonce_rows", "plan", "shipped"]

FUSED_DIM = 256
"""Largest D whose whole rows fit in registers beside a tile of logits."""
STRIP_ELEMENTS = 1 << 24
"""Logits of a chunked strip: 64 MB in fp32, and half as much again for its slopes in bf16."""
PRODUCT_RATE, FUSED_RATE, MEMORY_RATE = 7e14, 4.5e14, 3e12
"""FLOP/s of a large bf16 product and the aim of the fused kernels, bytes/s of memory: an H100's. The cost rule's."""


class Plan(NamedTuple):
    """Which form serves a shape, and why."""

    form: Literal["fused", "chunked"]
    reason: str


class _Tiles(NamedTuple):
    """Rows that stay, rows a step of the loop; warps, stages of the pipeline, blocks that a processor holds."""

    stay: int
    step: int
    warps: int
    stages: int
    resident: int = 1


class _Launch(NamedTuple):
    name: str
    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    tiles: _Tiles

    def run(self) -> None:
        # Fusing a * b + c is this kernel's own choice: the default changes from one Triton to the next.
        self.kernel[self.grid](
            *self.arguments, **self.constants,
            num_warps=self.tiles.warps, num_stages=self.tiles.stages, enable_fp_fusion=True,
        )  # fmt: skip


class _Call(NamedTuple):
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


def plan(queries: int, keys: int, dim: int, dtype: torch.dtype) -> Plan:
    """The cheaper form, by a model of an H100: eight FLOPs a pair and feature, 28 bytes a pair for what chunking moves.

    Fused is out of the question where a row does not fit in registers (D > 256), and for fp32 without TF32: there
    are no tensor cores for it, and cuBLAS's fp32 product is better than one made of scalar instructions.
    """
    form: Literal["fused", "chunked"] = "fused" if _fuses(dim, dtype) else "chunked"
    if dim > FUSED_DIM:
        return Plan(form, f"D = {dim} > {FUSED_DIM}: rows of the gradient do not fit in registers")
    if _scalar(dtype):
        return Plan(form, "fp32 without TF32 has no tensor cores: torch's product is the faster one")
    fused, chunked = (queries * keys * cost * 1e6 for cost in _costs(dim))
    return Plan(
        form, f"fused {fused:.3g} us, chunked {chunked:.3g} us by the cost rule (a model, not a measurement)"
    )


@torch.compiler.assume_constant_result  # a traced graph is guarded by torch's own check of this setting
def _tf32_allowed() -> bool:
    return torch.get_float32_matmul_precision() != "highest"


def _scalar(dtype: torch.dtype) -> bool:
    return dtype == torch.float32 and not _tf32_allowed()


def _costs(dim: int) -> tuple[float, float]:
    """Seconds a pair, forward and backward: fused and chunked."""
    flops = 8.0 * dim
    return flops / FUSED_RATE, flops / PRODUCT_RATE + 28.0 / MEMORY_RATE


def _fuses(dim: int, dtype: torch.dtype) -> bool:
    if dim > FUSED_DIM or _scalar(dtype):
        return False
    fused, chunked = _costs(dim)
    return fused <= chunked


def infonce_rows(
    queries: Tensor, keys: Tensor, positives: Tensor, *, temperature: Tensor,
    query_groups: Tensor | None = None, key_groups: Tensor | None = None, same_group: str = "exclude",
) -> RowStatistics:  # fmt: skip
    """As `reference.infonce_rows`, for M, N > 0."""
    groups = 0 if query_groups is None else 1 if same_group == "exclude" else 2
    wants = torch.is_grad_enabled() and (queries.requires_grad or temperature.requires_grad)
    rows, top1, logit, *_ = _forward(
        queries, keys, temperature, positives, query_groups, key_groups, groups,
        _fuses(queries.shape[1], queries.dtype), wants,
    )  # fmt: skip
    return RowStatistics(rows, top1, logit.detach())


# The custom ops. `direction` [M, D] is sum_j softmax_ij k_j - k_p(i), empty unless asked for.


@torch.library.custom_op("scalefast::sparse_infonce_forward", mutates_args=())
def _forward(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, groups: int, fused: bool, wants_direction: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Loss, top-1, positive's logit, base, number of positives, direction; see `triton_kernels`."""
    call = _call(queries, keys, temperature, positives, query_groups, key_groups, groups)
    out = _outputs(call, fused, wants_direction)
    if fused:
        for launch in _fused_forward(call, out, wants_direction):
            launch.run()
    else:
        _chunked_forward(call, out, wants_direction)
    return out


@_forward.register_fake
def _(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, groups: int, fused: bool, wants_direction: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    call = _Call(queries, keys, temperature, positives, query_groups, key_groups, groups)
    return _outputs(call, fused, wants_direction)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    queries, keys, temperature, positives, query_groups, key_groups, groups, fused, _ = inputs
    _, top1, logit, base, count, direction = output
    ctx.mark_non_differentiable(top1, logit, base, count, direction)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        queries, keys, temperature, positives, query_groups, key_groups, base, count, direction
    )
    ctx.groups, ctx.fused = groups, fused


def _backpropagate(ctx: Any, grad_rows: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:3]
    if grad_rows is None or not any(needs):
        return (None,) * 9
    grads = _backward(grad_rows, *ctx.saved_tensors, ctx.groups, ctx.fused, *needs)
    return *(g if need else None for g, need in zip(grads, needs, strict=True)), *(None,) * 6


_forward.register_autograd(_backpropagate, setup_context=_save)


@torch.library.custom_op("scalefast::sparse_infonce_backward", mutates_args=())
def _backward(
    grad_rows: Tensor, queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, base: Tensor, count: Tensor, direction: Tensor,
    groups: int, fused: bool, needs_q: bool, needs_k: bool, needs_t: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and temperature; empty where not needed."""
    call = _call(queries, keys, temperature, positives, query_groups, key_groups, groups)
    weight = torch.where(positives >= 0, grad_rows.float(), 0.0)
    grad_q, grad_k, grad_t = _gradients(queries, keys, temperature, needs_q, needs_k, needs_t)
    if needs_q or needs_t:
        if fused and groups == 2:
            direction = _fused_direction(call, base, count)
        slope = torch.empty_like(weight) if needs_t else grad_t
        _query_launch(call, direction, weight, grad_q, slope, needs_q, needs_t).run()
        if needs_t:
            grad_t = slope.sum().to(temperature.dtype).reshape(temperature.shape)
    if needs_k:
        strength, factor = _strength(weight, call)
        if fused:
            launch, parts = _slope_launch(call, base, count, strength, factor, grad_k, keys=True)
            launch.run()
            if parts is not None:
                grad_k = parts.sum(0).to(keys.dtype)
        else:
            _chunked_keys(call, base, count, strength, factor, grad_k)
    return grad_q, grad_k, grad_t


@_backward.register_fake
def _(
    grad_rows: Tensor, queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, base: Tensor, count: Tensor, direction: Tensor,
    groups: int, fused: bool, needs_q: bool, needs_k: bool, needs_t: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _gradients(queries, keys, temperature, needs_q, needs_k, needs_t)


def _call(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, groups: int,
) -> _Call:  # fmt: skip
    return _Call(
        queries.contiguous(), keys.contiguous(), temperature.float(), positives.contiguous(),
        None if query_groups is None else query_groups.contiguous(),
        None if key_groups is None else key_groups.contiguous(),
        groups,
    )  # fmt: skip


def _outputs(
    call: _Call, fused: bool, wants_direction: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    (m, d), fp32 = call.q.shape, {"dtype": torch.float32, "device": call.q.device}
    wants_direction = wants_direction and not (fused and call.groups == 2)  # those come in the backward pass
    return (
        torch.empty(m, **fp32), torch.empty(m, dtype=torch.bool, device=call.q.device),
        torch.empty(m, **fp32), torch.empty(2, m, **fp32), torch.empty(m if call.groups == 2 else 0, **fp32),
        torch.empty((m, d) if wants_direction else (0, d), **fp32),
    )  # fmt: skip


def _gradients(
    queries: Tensor, keys: Tensor, temperature: Tensor, needs_q: bool, needs_k: bool, needs_t: bool
) -> tuple[Tensor, Tensor, Tensor]:
    def like(x: Tensor, needed: bool) -> Tensor:
        return torch.empty(x.shape if needed else (0,), dtype=x.dtype, device=x.device)

    return like(queries, needs_q), like(keys, needs_k), like(temperature, needs_t)


def _strength(weight: Tensor, call: _Call) -> tuple[Tensor, Tensor]:
    """Weights for the slopes of the keys' gradient, and the factor that the sum then wants."""
    factor = 1.0 / call.temperature
    if not call.shift:
        return weight, factor
    # fp16 ends at 6e-8, and a weight (1 / rows) times a probability (1 / keys) is often less.
    peak = weight.abs().max()
    return torch.where(peak > 0, weight / peak, weight) * 2.0**14, factor * peak * 2.0**-14


def _unweighted(call: _Call) -> tuple[Tensor, float]:
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


def _parts(rows: int, others: int, tiles: _Tiles, device: torch.device) -> tuple[int, int]:
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


def _row_tiles(call: _Call) -> _Tiles:
    """For `row_kernel`: tiles that compile for sm_90 without spilling, see README."""
    if call.groups == 2:  # more statistics a row, but no gradient to accumulate
        return _Tiles(64, 32, 4, 2, resident=2)
    return _slope_tiles(call)


def _slope_tiles(call: _Call) -> _Tiles:
    """For `slope_kernel`. Of two blocks on a processor, one's exponentials hide behind the other's products."""
    wide = call.q.element_size() == 4
    if call.block_dim <= 128:
        return _Tiles(64, 32, 4, 2, resident=2) if wide else _Tiles(64, 64, 4, 3, resident=2)
    if _shared_memory(call.q.device) < 200_000:
        return _Tiles(32, 32, 4, 2) if wide else _Tiles(64, 32, 4, 2)
    return _Tiles(128, 32, 8, 2) if wide else _Tiles(128, 64, 8, 2)


def _fused_forward(call: _Call, out: tuple[Tensor, ...], wants_direction: bool) -> Iterator[_Launch]:
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
    label = f"{str(call.q.dtype)[6:]} {m} x {n} x {d}"
    yield _Launch(
        f"sparse_infonce positives, {label}", tk.positive_kernel, (triton.cdiv(m, 64),),
        (call.q, call.k, call.positives, own, m, n, d), {"BLOCK_M": 64, **dim}, _Tiles(64, 64, 4, 1),
    )  # fmt: skip
    yield _Launch(
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
    yield _Launch(
        f"sparse_infonce combine, {label}", tk.combine_kernel, (triton.cdiv(m, rows),),
        (
            call.k, call.positives, own, call.temperature, highest, total, target, number, acc,
            loss, top1, logit, base, count if call.groups == 2 else None, direction if direct else None, m, d, parts,
        ),
        {"BLOCK_M": rows, "BLOCK_D": block, "GROUPS": call.groups, "DIRECTION": direct, "SHIFT": call.shift},
        _Tiles(rows, 1, 4, 1),
    )  # fmt: skip


def _slope_launch(
    call: _Call, base: Tensor, count: Tensor, strength: Tensor, factor: Tensor, out: Tensor, *, keys: bool
) -> tuple[_Launch, Tensor | None]:
    """The launch; and the parts to be summed if the loop is split, which otherwise writes to `out`."""
    x, y = (call.k, call.q) if keys else (call.q, call.k)
    d = x.shape[1]
    tiles = _slope_tiles(call)
    parts, each = _parts(len(x), len(y), tiles, x.device)
    split = base.new_empty(parts, len(x), d) if parts > 1 else None
    launch = _Launch(
        f"sparse_infonce {'keys' if keys else 'multi-positive queries'} backward, "
        f"{str(x.dtype)[6:]} {len(call.q)} x {len(call.k)} x {d}",
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


def _fused_direction(call: _Call, base: Tensor, count: Tensor) -> Tensor:
    """Directions of multi-positive queries, which need the softmax's sum before the first product."""
    strength, factor = _unweighted(call)
    out = base.new_empty(call.q.shape)
    scale = torch.full((), factor, device=base.device)
    launch, parts = _slope_launch(call, base, count, strength, scale, out, keys=False)
    launch.run()
    return out if parts is None else parts.sum(0)


def _query_launch(
    call: _Call, direction: Tensor, weight: Tensor, grad: Tensor, slope: Tensor, needs_q: bool, needs_t: bool
) -> _Launch:
    m, d = call.q.shape
    block = min(call.block_dim, 256)
    rows = max(1, 2048 // block)
    return _Launch(
        f"sparse_infonce queries backward, {str(call.q.dtype)[6:]} {m} x {d}",
        tk.query_kernel, (triton.cdiv(m, rows),),
        (call.q, direction, weight, call.temperature, grad if needs_q else None, slope if needs_t else None, m, d),
        {"BLOCK_M": rows, "BLOCK_D": block, "GRADIENT": needs_q, "TEMPERATURE": needs_t}, _Tiles(rows, 1, 4, 1),
    )  # fmt: skip


# The chunked form.


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in fp32, whatever a and b are."""
    if a.dtype == torch.float32:
        return torch.mm(a, b)
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else torch.mm(a.float(), b.float())


def _dense_launch(
    s: Tensor, call: _Call, rows: slice, first: int, weight: Tensor, count: Tensor,
    statistics: tuple[Tensor, ...], slope: Tensor | None, *, new: bool,
) -> _Launch:  # fmt: skip
    loss, top1, logit, base = statistics
    m, n = s.shape
    return _Launch(
        f"sparse_infonce {'statistics of' if new else 'slopes of'} a strip, {str(call.q.dtype)[6:]} {m} x {n}",
        tk.dense_kernel, (m,),
        (
            s, call.positives[rows], call.temperature, None if call.query_groups is None else call.query_groups[rows],
            call.key_groups, weight, loss, top1, logit, base, count if call.groups == 2 else None, slope,
            len(call.q), n, first,
        ),
        {"BLOCK": 2048, "GROUPS": call.groups, "STATISTICS": new, "SLOPE": slope is not None}, _Tiles(1, 2048, 8, 1),
    )  # fmt: skip


def _chunked_forward(call: _Call, out: tuple[Tensor, ...], wants_direction: bool) -> None:
    loss, top1, logit, base, count, direction = out
    weight, factor = _unweighted(call)
    height = max(1, STRIP_ELEMENTS // len(call.k))
    with torch.autocast(call.q.device.type, enabled=False):
        for start in range(0, len(call.q), height):
            rows = slice(start, start + height)
            s = _product(call.q[rows], call.k.T)
            slope = torch.empty_like(s, dtype=call.q.dtype) if wants_direction else None
            found = (loss[rows], top1[rows], logit[rows], base[:, start:])  # rows of `base` stay M apart
            _dense_launch(s, call, rows, 0, weight[rows], count[rows], found, slope, new=True).run()
            if slope is not None:
                direction[rows] = _product(slope, call.k) * factor


def _chunked_keys(
    call: _Call, base: Tensor, count: Tensor, strength: Tensor, factor: Tensor, grad: Tensor
) -> None:
    """Strips of keys here, so that no strip adds to what another wrote."""
    width = max(1, STRIP_ELEMENTS // len(call.q))
    with torch.autocast(call.q.device.type, enabled=False):
        for start in range(0, len(call.k), width):
            keys = call.k[start : start + width]
            s = _product(call.q, keys.T)
            slope = torch.empty_like(s, dtype=call.q.dtype)
            statistics = (base, base, base, base)  # only the last is read
            _dense_launch(s, call, slice(None), start, strength, count, statistics, slope, new=False).run()
            grad[start : start + width] = _product(slope.T, call.q) * factor


# What ships.

_SHIPPED = (
    (2048, 8192, 128, torch.bfloat16),
    (4096, 8192, 256, torch.bfloat16),
    (2048, 8192, 128, torch.float16),
    (2048, 8192, 128, torch.float32),
)
"""M, N, D and dtype; fp32 with TF32."""


def shipped() -> list[Shipped]:
    """The reference shapes, by the same functions that launch: tensors without memory stand for real ones."""
    return [_as_shipped(launch) for shape in _SHIPPED for launch in _launches(*shape)]


def _launches(m: int, n: int, d: int, dtype: torch.dtype) -> Iterator[_Launch]:
    with torch.device("meta"):
        t, positives = torch.empty(()), torch.empty(m, dtype=torch.int64)
        call = _Call(
            torch.empty(m, d, dtype=dtype), torch.empty(n, d, dtype=dtype), t, positives, None, None, 0
        )
        out = _outputs(call, True, True)
        yield from _fused_forward(call, out, True)
        _, _, logit, base, count, direction = out
        yield _slope_launch(call, base, count, logit, t, torch.empty_like(call.k), keys=True)[0]
        yield _query_launch(call, direction, logit, torch.empty_like(call.q), logit, True, False)


def _as_shipped(launch: _Launch) -> Shipped:
    arguments = tuple(x.dtype if isinstance(x, Tensor) else x for x in launch.arguments)
    dots = launch.kernel in (tk.positive_kernel, tk.row_kernel, tk.slope_kernel)
    return Shipped(
        launch.name, launch.kernel, arguments, launch.constants,
        num_warps=launch.tiles.warps, num_stages=launch.tiles.stages, dots=dots,
    )  # fmt: skip
