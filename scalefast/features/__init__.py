"""Clip features on disk: extraction from videos with a frozen backbone, and the store that keeps them."""

from __future__ import annotations

from scalefast.features._array import VerifiedArray
from scalefast.features._compat import check_compatible
from scalefast.features._shard import ShardContent
from scalefast.features._writer import StoreWriter
from scalefast.features.store import FeatureStore, VideoSets

__all__ = ["FeatureStore", "ShardContent", "StoreWriter", "VerifiedArray", "VideoSets", "check_compatible"]
