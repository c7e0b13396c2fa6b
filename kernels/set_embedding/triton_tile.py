"""How rows of channels are cut into tiles."""

from __future__ import annotations

import triton
from torch import Tensor

__all__ = ["check_number", "rows_along_last", "tile_of"]


def tile_of(width: int, elements: int) -> dict[str, int]:
    """ROWS x WIDTH of a tile of `elements`: a width like 768 is cut into 3 x 256 rather than padded to 1024."""
    padded = triton.next_power_of_2(max(1, width))
    divisor = width & -width
    columns = divisor if padded != width and divisor >= 128 else padded
    columns = min(columns, 1024)
    return {"ROWS": max(1, elements // columns), "WIDTH": columns}


def rows_along_last(x: Tensor) -> Tensor:
    """x, copied only if its last dimension is strided."""
    return x if x.shape[-1] <= 1 or x.stride(-1) == 1 else x.contiguous()


def check_number(rows: int, what: str) -> None:
    """Rows are numbered in int32, and a program's last step may count past the last of them."""
    if rows >= 1 << 30:
        raise ValueError(f"{what} must be fewer than 2^30 in number; got {rows}")
