"""The bytes of a tensor, and checksums of them that can be made in parts."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Crc32", "tensor_bytes"]

_POLYNOMIAL = 0xEDB88320
"""CRC-32's, bits reversed as zlib has them: the highest bit is the coefficient of 1, the next that of x, and so on."""

_ONE, _EIGHTH_POWER = 1 << 31, 1 << 23


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor of any dtype, in row-major order, not copied where they lie so already."""
    flat: Any = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(flat)


class Crc32(NamedTuple):
    """`zlib.crc32` of some bytes, and their number, so that sums of two parts give that of the whole."""

    value: int = 0
    """The checksum."""

    length: int = 0
    """Bytes under it."""

    def of_more(self, tensor: Tensor) -> Crc32:
        """With the bytes of a CPU tensor after those there are."""
        data = tensor_bytes(tensor)
        return Crc32(zlib.crc32(data, self.value), self.length + len(data))

    def joined(self, after: Crc32) -> Crc32:
        """Of these bytes and then those of `after`, neither of which is needed."""
        shift, factor, left = _ONE, _EIGHTH_POWER, after.length
        while left:  # shift = x^(8 length) modulo the polynomial: what `length` bytes behind do to a checksum
            if left & 1:
                shift = _product(shift, factor)
            factor, left = _product(factor, factor), left >> 1
        return Crc32(_product(shift, self.value) ^ after.value, self.length + after.length)


def _product(a: int, b: int) -> int:
    """a b modulo CRC-32's polynomial, coefficients modulo 2."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product
