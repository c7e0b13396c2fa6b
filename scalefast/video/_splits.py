"""Names of splits, which data sets write in different ways."""

from __future__ import annotations

__all__ = ["SPLIT_NAMES", "same_split"]

_ALIASES = {"validate": "val", "validation": "val", "valid": "val", "testing": "test", "training": "train"}
SPLIT_NAMES = frozenset({"train", "test", "val", *_ALIASES})


def same_split(name: str, other: str) -> bool:
    """Whether two names mean the same split (`val` and Kinetics-700's `validate` do)."""
    first, second = name.strip().lower(), other.strip().lower()
    return _ALIASES.get(first, first) == _ALIASES.get(second, second)
