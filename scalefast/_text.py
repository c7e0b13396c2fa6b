"""Numbers in sentences for people."""

from __future__ import annotations

__all__ = ["counted", "size_of"]

_UNITS = ("bytes", "KiB", "MiB", "GiB")


def counted(number: int, noun: str) -> str:
    """`1 video`, `25 videos`, `1,200 classes`: a noun with a regular plural, in the form that fits the number."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def size_of(nbytes: float) -> str:
    """`60 bytes`, `2.49 MiB`, `13.41 GiB`: in the largest unit of which there is one at least."""
    power = 0
    while power < len(_UNITS) - 1 and nbytes >= 1024:
        nbytes, power = nbytes / 1024, power + 1
    return f"{nbytes:.0f} bytes" if power == 0 else f"{nbytes:.2f} {_UNITS[power]}"
