"""Philox-4x32-10 in plain PyTorch: the specification of every random number in scalefast.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3.

    key     = (seed mod 2^32, seed div 2^32)
    counter = (index, site, row, step)            four 32-bit words

A number is a pure function of (seed, step, row, site, index): which set it belongs to (`row`, global over
ranks), what it is for (`site`) and where in the set it is (`index`). How sets are packed, batched or spread
over ranks cannot change it.

Words are kept in int64 tensors, since PyTorch has no unsigned 32-bit multiply-high.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["philox_words", "round_keys"]

MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
MASK32 = 0xFFFFFFFF
ROUNDS = 10


def round_keys(seed: Tensor) -> tuple[Tensor, Tensor]:
    """The two key words of each of the 10 rounds, int64 [10] each, from an int64 seed (0-d)."""
    steps = torch.arange(ROUNDS, device=seed.device, dtype=torch.int64)
    low = ((seed & MASK32) + steps * WEYL_0) & MASK32
    high = (((seed >> 32) & MASK32) + steps * WEYL_1) & MASK32
    return low, high


def philox_words(seed: Tensor, *, step: Tensor, row: Tensor, site: int, index: Tensor) -> list[Tensor]:
    """Four random 32-bit words for each counter.

    Args:
        seed, step: int64, 0-d, on the device of `row`; nothing is read back to the host.
        row, index: int64, shapes that broadcast against each other; only their low 32 bits count.
        site: what the numbers are for; see `kernels.philox.Site`.

    Returns:
        Four int64 tensors of the broadcast shape with values in [0, 2^32).
    """
    shape = torch.broadcast_shapes(row.shape, index.shape)
    keys_0, keys_1 = round_keys(seed)
    if seed.device.type == "cpu" and not torch.compiler.is_compiling():
        rounds = list(zip(keys_0.tolist(), keys_1.tolist(), strict=True))
    else:
        rounds = list(zip(keys_0.unbind(), keys_1.unbind(), strict=True))
    a = (index & MASK32).expand(shape).clone()  # cloned: an expanded tensor cannot be written in place
    b = torch.full(shape, site & MASK32, dtype=torch.int64, device=row.device)
    c = (row & MASK32).expand(shape).clone()
    d = (step & MASK32).expand(shape).clone()
    p, q = torch.empty_like(a), torch.empty_like(a)
    # b and d may carry rubbish above bit 31 from one round to the next: they are only ever XORed into a word
    # that is masked right afterwards. That saves two of twelve passes over memory in each round.
    for key_0, key_1 in rounds:
        torch.mul(a, MULTIPLIER_0, out=p)
        torch.mul(c, MULTIPLIER_1, out=q)
        torch.bitwise_right_shift(q, 32, out=a)
        a.bitwise_xor_(b).bitwise_xor_(key_0).bitwise_and_(MASK32)
        torch.bitwise_right_shift(p, 32, out=c)
        c.bitwise_xor_(d).bitwise_xor_(key_1).bitwise_and_(MASK32)
        b, q = q, b
        d, p = p, d
    return [a, b & MASK32, c, d & MASK32]
