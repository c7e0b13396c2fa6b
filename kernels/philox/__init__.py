"""Counter-based random numbers: who draws what, and the dropout, masks and uniforms made of them.

Shapes: `S` sets (rows), `N` numbers a set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from ..dispatch import choose
from ..native import serves_native
from .reference import philox_words

__all__ = [
    "RandomState",
    "Site",
    "check_seed",
    "dropout",
    "dropout_limit",
    "dropout_multiplier",
    "philox_words",
    "site_word",
    "uniform_bits",
]

# Blocks of 8 numbers that are worked on at a time, so that the six int64 buffers stay in cache: 17 ns a block
# at 2^16, 64 ns at 2^20 (2-core EPYC, Zen 5, 2026-11-21).
_BLOCKS_AT_A_TIME = 1 << 16


class Site(IntEnum):
    """What a number is for: the second counter word. Transformer layer `i` adds `i * 16` to the dropout sites."""

    VIEW = 1
    MASK = 2
    ORDER = 3
    ATTENTION_DROPOUT = 16
    PROJECTION_DROPOUT = 17
    HIDDEN_DROPOUT = 18
    OUTPUT_DROPOUT = 19


@dataclass(frozen=True)
class RandomState:
    """Where the random numbers of a step come from.

    Seed and step are one tensor on the device, so that a captured CUDA graph can advance them without the
    host.
    """

    state: Tensor
    """int64 [2]: seed and step."""
    rows: Tensor
    """int64 [S]: the global id of each set (its video's row in the store, or 2 * row + view), whatever the number
    of ranks."""
    layer: int = 0
    """Transformer layer whose dropout is drawn."""

    def __post_init__(self) -> None:
        if self.state.shape != (2,) or self.state.dtype != torch.int64:
            raise ValueError(
                f"state must be int64 [2] = (seed, step); got {self.state.shape = }, {self.state.dtype = }"
            )
        if self.rows.ndim != 1 or self.rows.dtype != torch.int64:
            raise ValueError(f"rows must be int64 [S]; got {self.rows.shape = }, {self.rows.dtype = }")
        if self.rows.device != self.state.device:
            raise ValueError(
                f"state and rows must be on one device; got {self.state.device = }, {self.rows.device = }"
            )

    @classmethod
    def create(cls, seed: int, *, step: int = 0, rows: Tensor) -> RandomState:
        """From Python numbers; `rows` int64 [S] decides the device."""
        return cls(torch.tensor([seed, step], dtype=torch.int64, device=rows.device), rows)

    @classmethod
    def of(cls, rng: RandomState | Tensor, rows: Tensor) -> RandomState:
        """Of a state or of its tensor alone (int64 [2]: seed, step); the tensor draws for `rows`."""
        return cls(rng, rows) if isinstance(rng, Tensor) else rng

    def with_rows(self, rows: Tensor) -> RandomState:
        """The same seed and step for other sets."""
        return RandomState(self.state, rows, self.layer)

    def at_layer(self, layer: int) -> RandomState:
        """The same, drawing for another transformer layer."""
        return RandomState(self.state, self.rows, layer)

    def words(self, site: int, index: Tensor) -> list[Tensor]:
        """Four words for every (set, index): `index` int64 [N] -> four int64 [S, N]."""
        return philox_words(
            self.state[0],
            step=self.state[1],
            row=self.rows[:, None],
            site=site_word(site, self.layer),
            index=index[None, :],
        )


def site_word(site: int, layer: int) -> int:
    """The counter word of a site in a transformer layer; only the dropout sites differ between layers."""
    return int(site) + (16 * layer if int(site) >= _FIRST_OF_A_LAYER else 0)


# A plain number: torch.compile of torch 2.11 cannot compare members of an IntEnum.
_FIRST_OF_A_LAYER = int(Site.ATTENTION_DROPOUT)


def dropout_limit(p: float) -> tuple[int, float]:
    """For dropping with probability p: the limit that 16 bits, read as two's complement, must reach to be kept, and
    the scale of what is kept.

    Raises:
        ValueError: p is outside [0, 1).
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout probability must be in [0, 1); got {p = }")
    threshold = round(p * 65536)
    if threshold == 65536:
        raise ValueError(
            f"dropout probability must be at most 1 - 2^-17: it is rounded to 1/65536; got {p = }"
        )
    return threshold - 32768, 65536.0 / (65536 - threshold)


def uniform_bits(rng: RandomState, *, site: int, count: int) -> Tensor:
    """32 random bits for each of `count` indices of every set: int64 [S, count] in [0, 2^32)."""
    index = torch.arange(count, device=rng.rows.device)
    return rng.words(site, index)[0]


def dropout_multiplier(
    rng: RandomState, *, site: int, blocks: Tensor, p: float, dtype: torch.dtype, lanes: int | None = None
) -> Tensor:
    """What dropout multiplies by: 0 with probability p, else 1 / (1 - p).

    One Philox call serves 8 numbers of 16 bits: number `i` of a set is lane `i mod 8` of block `i div 8`,
    lanes being the words' 16-bit halves, low half first, read as two's complement; it is dropped when below
    round(p 2^16) - 2^15. So p is rounded to 1/65536, and the scale uses the rounded p: the expectation is
    exact, up to the rounding of `dtype`.

    Args:
        rng: seed, step, sets [S].
        site: what is dropped.
        blocks: int64 [K], the blocks that are wanted.
        p: probability in [0, 1).
        dtype: floating dtype of the result.
        lanes: how many of the `8 K` numbers are kept of each set; all if not given.

    Returns:
        [S, lanes].
    """
    limit, scale = dropout_limit(p)
    sets, width = rng.rows.numel(), 8 * blocks.numel()
    lanes = width if lanes is None else lanes
    out = torch.empty(sets, lanes, dtype=dtype, device=rng.rows.device)
    stride = max(1, _BLOCKS_AT_A_TIME // max(1, blocks.numel()))
    for start in range(0, sets, stride):
        part = rng.with_rows(rng.rows[start : start + stride])
        words = torch.stack([w.to(torch.int32) for w in part.words(site, blocks)], dim=-1)
        keep = words.view(torch.int16).view(len(part.rows), width) >= limit
        torch.mul(keep[:, :lanes].to(dtype), scale, out=out[start : start + stride])
    return out


def dropout(x: Tensor, rng: RandomState, *, site: int, p: float) -> Tensor:
    """`x * dropout_multiplier(rng, site=site, ...)`: every number of a set is dropped by its place in the set.

    Args:
        x: [S, ...], floating; a set's numbers are counted in the order of its remaining dimensions.
        rng: seed, step, rows [S], layer.
        site: what is dropped; see `Site`.
        p: probability in [0, 1).

    Returns:
        Of x's shape and dtype.

    Raises:
        ValueError: x is not floating, its sets are not those of `rng`, or p is outside [0, 1).
    """
    if x.ndim < 1 or not x.is_floating_point() or len(x) != len(rng.rows):
        raise ValueError(f"x must be floating [{len(rng.rows)}, ...]; got {tuple(x.shape)}, {x.dtype}")
    if x.device != rng.rows.device:
        raise ValueError(f"x and rng must be on one device; got {x.device} and {rng.rows.device}")
    dropout_limit(p)
    if p == 0.0:
        return x
    if choose(x.device).implementation == "triton" and x.dtype != torch.float64:
        from . import triton as fused

        return fused.dropout(x, state=rng.state, rows=rng.rows, site=site_word(site, rng.layer), p=p)
    if serves_native(x) and x.numel():
        from . import native

        served: Tensor = native.dropout(x, rng.state, rng.rows, site_word(site, rng.layer), p)
        return served
    numbers = x[:1].numel()
    blocks = torch.arange(-(-numbers // 8), device=x.device)
    drawn = dropout_multiplier(rng, site=site, blocks=blocks, p=p, dtype=x.dtype, lanes=numbers)
    return x * drawn.view_as(x)


def check_seed(seed: int) -> int:
    """A seed as int64 takes it, or a ValueError."""
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"a seed must be an integer in [0, 2^63); got {seed = }")
    return seed
