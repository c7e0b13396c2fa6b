"""Launches of the Triton kernels of `sparse_infonce`, and their registration with torch.

Shapes: `M` queries, `N` keys, `D` feature. Two forms, chosen by `plan`: "fused" keeps a tile of logits in registers,
"chunked" lets a matrix product write a strip of logits and a kernel turn it into slopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..compilation import Shipped
from ..compilation.launch import Launch
from . import triton_kernels as tk
from . import triton_symmetric_kernels as ts
from .chunked import STRIP_ELEMENTS, chunked_forward, chunked_keys, dense_launch
from .launches import Call, fused_direction, fused_forward, query_launch, slope_launch, strength_of
from .reference import RowStatistics
from .triton_symmetric import LOWEST_TEMPERATURE, symmetric_launches, symmetric_rows
from .unit_rows import unit_launches

__all__ = ["Plan", "infonce_rows", "plan", "shipped", "symmetric_rows", "why_two_passes"]

FUSED_DIM = 256
"""Largest D whose whole rows fit in registers beside a tile of logits."""
PRODUCT_RATE, FUSED_RATE, MEMORY_RATE = 7e14, 4.5e14, 3e12
"""FLOP/s of a large bf16 product and the aim of the fused kernels, bytes/s of memory: an H100's. The cost rule's."""


class Plan(NamedTuple):
    """Which form serves a shape, and why."""

    form: Literal["fused", "chunked"]
    reason: str


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


def why_two_passes(rows: int, dim: int, dtype: torch.dtype, *, temperature: float) -> str | None:
    """Why the symmetric loss of unit rows is that of two calls; None if `symmetric_rows` serves it in one pass."""
    if rows < 2:
        return "a lone pair has loss 0 to the last bit in two passes only"
    if not _fuses(dim, dtype):
        return plan(rows, rows, dim, dtype).reason
    if dtype == torch.float16:
        return "probabilities against a fixed maximum are too small for fp16"
    if temperature < LOWEST_TEMPERATURE:
        return f"temperature {temperature} < {LOWEST_TEMPERATURE}: the fixed maximum would be too far from the logits"
    return None


@torch.compiler.assume_constant_result  # torch.compile cannot trace it: a graph keeps the setting of its tracing
def _tf32_allowed() -> bool:
    """By torch's own setting; or by autocast, which would take fp32 factors to bf16, three bits less than TF32 has."""
    return torch.get_float32_matmul_precision() != "highest" or torch.is_autocast_enabled("cuda")


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
        for launch in fused_forward(call, out, wants_direction):
            launch.run()
    else:
        chunked_forward(call, out, wants_direction)
    return out


@_forward.register_fake
def _(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor,
    query_groups: Tensor | None, key_groups: Tensor | None, groups: int, fused: bool, wants_direction: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    call = Call(queries, keys, temperature, positives, query_groups, key_groups, groups)
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
            direction = fused_direction(call, base, count)
        slope = torch.empty_like(weight) if needs_t else grad_t
        query_launch(call, direction, weight, grad_q, slope, needs_q, needs_t).run()
        if needs_t:
            grad_t = slope.sum().to(temperature.dtype).reshape(temperature.shape)
    if needs_k:
        strength, factor = strength_of(weight, call)
        if fused:
            launch, parts = slope_launch(call, base, count, strength, factor, grad_k, keys=True)
            launch.run()
            if parts is not None:
                grad_k = parts.sum(0).to(keys.dtype)
        else:
            chunked_keys(call, base, count, strength, factor, grad_k)
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
) -> Call:  # fmt: skip
    return Call(
        queries.contiguous(), keys.contiguous(), temperature.float(), positives.contiguous(),
        None if query_groups is None else query_groups.contiguous(),
        None if key_groups is None else key_groups.contiguous(),
        groups,
    )  # fmt: skip


def _outputs(
    call: Call, fused: bool, wants_direction: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    (m, d), fp32 = call.q.shape, dict[str, Any](dtype=torch.float32, device=call.q.device)
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


# What ships.

_SHIPPED = (
    (2048, 8192, 128, torch.bfloat16, 0),
    (4096, 8192, 256, torch.bfloat16, 0),
    (2048, 8192, 128, torch.float16, 0),
    (2048, 8192, 128, torch.float32, 0),
    (4096, 8192, 64, torch.bfloat16, 0),
    (2048, 8192, 128, torch.bfloat16, 1),
    (4096, 8192, 256, torch.bfloat16, 1),
    (4096, 8192, 256, torch.bfloat16, 2),
    (4096, 8192, 512, torch.bfloat16, 0),
)
"""M, N, D, dtype (fp32 with TF32) and groups: 1 left out, 2 positives."""


_SHIPPED_SYMMETRIC = (
    (512, 128, torch.bfloat16),
    (4096, 256, torch.bfloat16),
    (4096, 64, torch.bfloat16),
    (512, 128, torch.float32),
)
"""M, D, dtype."""


def shipped() -> list[Shipped]:
    """The reference shapes, by the same functions that launch: tensors without memory stand for real ones.

    Launches that know nothing of groups come with every form of them; each is listed once.
    """
    launches = [launch for shape in _SHIPPED for launch in _launches(*shape)]
    launches += [launch for shape in _SHIPPED_SYMMETRIC for launch in symmetric_launches(*shape)]
    with_dots = (tk.positive_kernel, tk.row_kernel, tk.slope_kernel, ts.sums_kernel, ts.pair_kernel)
    every = [launch.shipped(dots=launch.kernel in with_dots) for launch in launches]
    return list({one.name: one for one in every}.values())


def _launches(m: int, n: int, d: int, dtype: torch.dtype, groups: int) -> Iterator[Launch]:
    with torch.device("meta"):
        q, k, t = torch.empty(m, d, dtype=dtype), torch.empty(n, d, dtype=dtype), torch.empty(())
        positives, keys = torch.empty(m, dtype=torch.int64), torch.empty(n, dtype=torch.int64)
        call = Call(q, k, t, positives, positives if groups else None, keys if groups else None, groups)
        fused = d <= FUSED_DIM
        out = _outputs(call, fused, True)
        _, _, logit, base, count, direction = out
        yield from unit_launches(q)
        if fused:
            yield from fused_forward(call, out, True)
            yield slope_launch(call, base, count, logit, t, torch.empty_like(k), keys=True)[0]
            if groups == 2:
                direction = torch.empty(m, d)
                yield slope_launch(call, base, count, logit, t, direction, keys=False)[0]
        else:
            s = torch.empty(STRIP_ELEMENTS // n, n)
            for new in (True, False):
                yield dense_launch(
                    s, call, slice(None), 0, logit, count, out[:4], torch.empty_like(s, dtype=dtype), new=new
                )
        yield query_launch(call, direction, logit, torch.empty_like(q), logit, True, False)
        yield query_launch(call, direction, logit, torch.empty_like(q), logit, True, True)
