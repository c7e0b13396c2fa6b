"""The symmetric loss in one pass: launches, and their registration with torch.

Shapes: `M` queries and as many keys, `D` feature. Five matrix products forward and backward; two calls of the
one-directional form take eight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from ..compilation.launch import Launch
from . import triton_kernels as tk
from . import triton_symmetric_kernels as ts
from .launches import SPENDTHRIFT, Call, Tiles, launch_of, slope_tiles, split_loop
from .reference import RowStatistics

__all__ = ["LOWEST_TEMPERATURE", "symmetric_launches", "symmetric_rows"]

LOWEST_TEMPERATURE = 0.025
"""Below it e = exp((s - 1) / T) of opposite rows is no normal fp32 number."""
COLUMN_SUMS = 1 << 24
"""Sums of columns over blocks of rows that are kept at a time: 64 MB, and as much for the largest dots."""


def symmetric_rows(queries: Tensor, keys: Tensor, positives: Tensor, *, temperature: Tensor) -> RowStatistics:
    """Mean of both directions for unit rows and a permutation, M > 1; the temperature gets no gradient."""
    rows, top1, logit, _ = _forward(queries, keys, temperature, positives)
    return RowStatistics(rows, top1, logit.detach())


# The custom ops. `base` [2, M]: for each query the sum of its row, and of its key's column.


@torch.library.custom_op("scalefast::sparse_infonce_symmetric", mutates_args=())
def _forward(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, top-1 of both directions, positive's logit, base."""
    out = _outputs(queries)
    for launch in _forward_launches(_call(queries, keys, temperature, positives), out):
        launch.run()
    return out


@_forward.register_fake
def _(
    queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(queries)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, top1, logit, base = output
    ctx.mark_non_differentiable(top1, logit, base)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, base)


def _backpropagate(ctx: Any, grad_rows: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    needs_q, needs_k, needs_t, _ = ctx.needs_input_grad
    assert not needs_t, "a temperature that is learned takes the one-directional form"
    if grad_rows is None or not (needs_q or needs_k):
        return (None,) * 4
    grad_q, grad_k = _backward(grad_rows, *ctx.saved_tensors, needs_q, needs_k)
    return grad_q if needs_q else None, grad_k if needs_k else None, None, None


_forward.register_autograd(_backpropagate, setup_context=_save)


@torch.library.custom_op("scalefast::sparse_infonce_symmetric_backward", mutates_args=())
def _backward(
    grad_rows: Tensor, queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor, base: Tensor,
    needs_q: bool, needs_k: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of queries and keys; empty where not needed."""
    call = _call(queries, keys, temperature, positives)
    weight = grad_rows.float().contiguous()
    strength, other = 0.5 * weight / base
    # What belongs to a key, by the key's number.
    inverse = torch.empty_like(call.positives)
    of_key, key_strength = torch.empty_like(weight), torch.empty_like(weight)
    inverse[call.positives] = torch.arange(len(weight), device=weight.device)
    of_key[call.positives], key_strength[call.positives] = weight, other
    grads = []
    for needed, x, y, own, own_weight, of_x, of_y in (
        (needs_q, call.q, call.k, call.positives, weight, strength, key_strength),
        (needs_k, call.k, call.q, inverse, of_key, key_strength, strength),
    ):
        grad = _gradient(x, needed)
        if needed:
            launch, parts = _pair_launch(call, x, y, own, own_weight, of_x, of_y, grad)
            launch.run()
            grad = grad if parts is None else parts.sum(0).to(x.dtype)
        grads.append(grad)
    return grads[0], grads[1]


@_backward.register_fake
def _(
    grad_rows: Tensor, queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor, base: Tensor,
    needs_q: bool, needs_k: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _gradient(queries, needs_q), _gradient(keys, needs_k)


def _gradient(x: Tensor, needed: bool) -> Tensor:
    return x.new_empty(x.shape if needed else (0,))


def _call(queries: Tensor, keys: Tensor, temperature: Tensor, positives: Tensor) -> Call:
    return Call(
        queries.contiguous(), keys.contiguous(), temperature.float(), positives.contiguous(), None, None, 0
    )


def _outputs(queries: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    m = len(queries)
    floats = [queries.new_empty(size, dtype=torch.float32) for size in ((m,), (m,), (2, m))]
    return floats[0], queries.new_empty(m, dtype=torch.bool), floats[1], floats[2]


def _forward_launches(call: Call, out: tuple[Tensor, ...]) -> Iterator[Launch]:
    """Of the dots with one's own, of the sums (in strips of rows, so that memory is bounded), and of their meeting."""
    loss, top1, logit, base = out
    m, d = call.q.shape
    tiles = _sums_tiles(call)
    parts, each = split_loop(m, m, tiles, call.q.device)
    own = torch.empty_like(loss)
    row_sum, row_max = loss.new_empty(2, parts, m)
    dim = {"BLOCK_D": call.block_dim, "EVEN_D": call.even_dim, "PRECISION": "tf32"}
    label = f"{str(call.q.dtype)[6:]} {m} x {m} x {d}"
    yield launch_of(
        f"positives, {label}", tk.positive_kernel, (triton.cdiv(m, 64),),
        (call.q, call.k, call.positives, own, m, m, d), {"BLOCK_M": 64, **dim}, Tiles(64, 64, 4, 1),
    )  # fmt: skip
    height = max(1, COLUMN_SUMS // m) * tiles.stay
    columns = []
    for start in range(0, m, height):
        blocks = triton.cdiv(min(height, m - start), tiles.stay)
        column_sum, column_max = loss.new_empty(2, blocks, m)
        yield launch_of(
            f"symmetric sums, {label}", ts.sums_kernel, (blocks, parts),
            (
                call.q, call.k, call.positives, own, call.temperature,
                row_sum, row_max, column_sum, column_max, m, d, start, each,
            ),
            {
                "BLOCK_M": tiles.stay, "BLOCK_N": tiles.step,
                "EVEN_M": m % tiles.stay == 0, "EVEN_N": m % tiles.step == 0, **dim,
            },
            tiles,
        )  # fmt: skip
        columns.append((column_sum, column_max))
    if len(columns) > 1:
        column_sum = torch.stack([part.sum(0) for part, _ in columns])
        column_max = torch.stack([part.amax(0) for _, part in columns])
    yield launch_of(
        f"symmetric rows, {label}", ts.meet_kernel, (triton.cdiv(m, 128),),
        (
            call.positives, own, call.temperature, row_sum, row_max, column_sum, column_max,
            loss, top1, logit, base, m, parts, len(column_sum),
        ),
        {"BLOCK_M": 128}, Tiles(128, 1, 4, 1),
    )  # fmt: skip


def _pair_launch(
    call: Call, x: Tensor, y: Tensor, own: Tensor, weight: Tensor, of_x: Tensor, of_y: Tensor, out: Tensor
) -> tuple[Launch, Tensor | None]:
    """The launch; and the parts to be summed if the loop is split, which otherwise writes to `out`."""
    m, d = x.shape
    tiles = _pair_tiles(call)
    parts, each = split_loop(m, m, tiles, x.device)
    split = weight.new_empty(parts, m, d) if parts > 1 else None
    launch = launch_of(
        f"symmetric backward, {str(x.dtype)[6:]} {m} x {m} x {d}", ts.pair_kernel, (triton.cdiv(m, tiles.stay), parts),
        (x, y, own, weight, of_x, of_y, call.temperature, out if split is None else split, m, d, each),
        {
            "BLOCK_X": tiles.stay, "BLOCK_Y": tiles.step, "BLOCK_D": call.block_dim, "EVEN_D": call.even_dim,
            "PRECISION": "tf32",
        },
        tiles,
    )  # fmt: skip
    return launch, split


def _sums_tiles(call: Call) -> Tiles:
    """For `sums_kernel`, which keeps no gradient in registers."""
    wide = call.q.element_size() == 4
    step = 32 if wide or (call.block_dim > 128 and SPENDTHRIFT) else 64
    return Tiles(64, step, 4, 2 if wide or call.block_dim > 128 else 3, resident=2)


def _pair_tiles(call: Call) -> Tiles:
    """For `pair_kernel`: TF32 with four warps spills on sm_100 with Triton 3.6."""
    wide = call.q.element_size() == 4
    return Tiles(64, 32, 8, 2) if wide and call.block_dim <= 128 else slope_tiles(call)


def symmetric_launches(m: int, d: int, dtype: torch.dtype) -> Iterator[Launch]:
    """What ships: the launches of both passes, for inputs without memory."""
    with torch.device("meta"):
        x, positives = torch.empty(m, d, dtype=dtype), torch.empty(m, dtype=torch.int64)
        call, out = Call(x, x, torch.empty(()), positives, None, None, 0), _outputs(x)
        yield from _forward_launches(call, out)
        yield _pair_launch(call, x, x, positives, out[0], out[0], out[0], torch.empty_like(x))[0]
