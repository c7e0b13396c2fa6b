"""Where each set lies in a packed sequence of tokens: built once a batch, shared by all layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..dispatch import serves_triton

__all__ = ["MAX_TILE_TOKENS", "SetLayout", "most_tokens", "tile_rows"]

MAX_TILE_TOKENS = 128
"""Longest set that is attended within one tile."""


def most_tokens(dtype: torch.dtype) -> int:
    """Longest set that the kernels serve: in fp32 a tile of 128 rows wants 320 KiB of shared memory of 227."""
    return MAX_TILE_TOKENS // 2 if dtype == torch.float32 else MAX_TILE_TOKENS


def tile_rows(longest: int) -> int:
    """Rows of a tile for sets of up to `longest` tokens."""
    return 64 if longest <= 64 else 128


@dataclass(frozen=True)
class SetLayout:
    """Sets of different lengths, one behind the other.

    `lengths` are tokens a set, CLS included, as everywhere in set attention.
    """

    lengths: Tensor
    """int64 [B], tokens in each set."""
    offsets: Tensor
    """int64 [B + 1], first token of each set; the last is the number of tokens T."""
    max_length: int
    """Tokens in the longest set (a host number: building a layout on a GPU synchronises once)."""
    total: int
    """T, tokens in all."""
    tile_starts: Tensor | None = None
    """int64 [tiles + 1], first token of each tile of whole sets, for the GPU kernels; see `tiles`."""
    owners: Tensor | None = None
    """int32 [T], which set each token belongs to, for the GPU kernels."""

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> SetLayout:
        """From int [B] lengths; a negative length raises ValueError."""
        if lengths.ndim != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise ValueError(f"lengths must be integers [B]; got {lengths.shape = }, {lengths.dtype = }")
        lengths = lengths.to(torch.int64)
        offsets = torch.zeros(lengths.numel() + 1, dtype=torch.int64, device=lengths.device)
        torch.cumsum(lengths, dim=0, out=offsets[1:])
        if lengths.numel() == 0:
            return cls(lengths, offsets, 0, 0)
        shortest, longest, total = torch.stack([lengths.min(), lengths.max(), offsets[-1]]).tolist()
        if shortest < 0:
            raise ValueError(f"lengths must not be negative; got a set of {shortest}")
        layout = cls(lengths, offsets, longest, total)
        if 0 < longest <= MAX_TILE_TOKENS and serves_triton("set_attention", lengths):
            return replace(layout, tile_starts=layout._tile_starts(), owners=layout._owners())
        return layout

    def tiles(self) -> tuple[Tensor, Tensor]:
        """`tile_starts` and `owners`, made now if the layout was not built for a GPU; nothing synchronises."""
        if self.tile_starts is None or self.owners is None:
            return self._tile_starts(), self._owners()
        return self.tile_starts, self.owners

    def _owners(self) -> Tensor:
        return self.set_of_token().to(torch.int32)

    def _tile_starts(self) -> Tensor:
        """Next fit: a tile takes the sets that follow as long as they fit. Sets stay in order, so a tile is a range of
        tokens, and no packing of ranges needs fewer tiles.

        Next fit is a chain (each tile starts where the one before ended), walked here by doubling: log2(tiles) steps of
        two gathers. How many tiles there will be is bounded from numbers that the host has; those too many are empty.
        """
        sets, rows = self.lengths.numel(), tile_rows(self.max_length)
        following = torch.searchsorted(self.offsets, self.offsets + rows, right=True) - 1
        first = torch.zeros(1, dtype=torch.int64, device=self.lengths.device)
        bound = self._tiles_at_most(sets, rows)
        while first.numel() <= bound:
            first = torch.cat([first, following[first]])
            following = following[following]
        return self.offsets[first[: bound + 1]]

    def _tiles_at_most(self, sets: int, rows: int) -> int:
        # A tile with a successor could not take one set more, so it holds over rows - max_length tokens, and two
        # neighbours hold over `rows`.
        if self.total == 0:
            return 1
        alone = (self.total - 1) // (rows - self.max_length + 1) + 1
        return min(sets, alone, 2 * (self.total // (rows + 1)) + 1)

    def set_of_token(self) -> Tensor:
        """int64 [T]: which set each packed token belongs to."""
        sets = torch.arange(self.lengths.numel(), device=self.lengths.device)
        return torch.repeat_interleave(sets, self.lengths, output_size=self.total)

    def slot_of_token(self) -> Tensor:
        """int64 [T]: each packed token's place within its set."""
        tokens = torch.arange(self.total, device=self.lengths.device)
        return tokens - self.offsets[self.set_of_token()]
