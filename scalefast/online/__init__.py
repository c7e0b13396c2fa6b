"""Pretraining straight from videos: decoding, backbone and SCALE in one process, without a store or filling one.

`pretrain(OnlineVideos(videos=..., backbone=..., recipe=...), out="run")` draws fresh clips of every video in every
epoch.
"""

from __future__ import annotations

from scalefast.online._source import OnlineVideos

__all__ = ["OnlineVideos"]
