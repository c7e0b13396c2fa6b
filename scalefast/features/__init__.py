"""Clip features on disk: extraction from videos with a frozen backbone, and the store that keeps them.

Names are imported when they are first used, so that worker processes which only decode do not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalefast.features._array import VerifiedArray
    from scalefast.features._compat import check_compatible
    from scalefast.features._shard import ShardContent
    from scalefast.features._summary import ExtractSummary
    from scalefast.features._writer import StoreWriter
    from scalefast.features.extraction import extract
    from scalefast.features.ray_extraction import extract_on_ray
    from scalefast.features.store import FeatureStore, VideoSets

__all__ = [
    "ExtractSummary",
    "FeatureStore",
    "ShardContent",
    "StoreWriter",
    "VerifiedArray",
    "VideoSets",
    "check_compatible",
    "extract",
    "extract_on_ray",
]

_HOMES = {
    "ExtractSummary": "_summary",
    "FeatureStore": "store",
    "ShardContent": "_shard",
    "StoreWriter": "_writer",
    "VerifiedArray": "_array",
    "VideoSets": "store",
    "check_compatible": "_compat",
    "extract": "extraction",
    "extract_on_ray": "ray_extraction",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
