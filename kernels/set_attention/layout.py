"""Where each set lies in a packed sequence of tokens: built once a batch, shared by all layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SetLayout"]


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
        return cls(lengths, offsets, longest, total)

    def set_of_token(self) -> Tensor:
        """int64 [T]: which set each packed token belongs to."""
        sets = torch.arange(self.lengths.numel(), device=self.lengths.device)
        return torch.repeat_interleave(sets, self.lengths, output_size=self.total)

    def slot_of_token(self) -> Tensor:
        """int64 [T]: each packed token's place within its set."""
        tokens = torch.arange(self.total, device=self.lengths.device)
        return tokens - self.offsets[self.set_of_token()]
