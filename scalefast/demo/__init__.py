"""Rendered videos on which SCALE can be tried without downloading anything.

python -m scalefast.demo VIDEOS --structure tempo    # writes VIDEOS/{train,test}/CLASS/*.mp4
"""

from __future__ import annotations

from scalefast.demo.actions import CLASSES, render_action
from scalefast.demo.chapters import CHAPTERS, render_chapters
from scalefast.demo.dataset import VIDEO_STRUCTURES, DemoSet, VideoStructure, render_set, write_video
from scalefast.demo.patterns import PATTERNS, render_pattern

__all__ = [
    "CHAPTERS",
    "CLASSES",
    "PATTERNS",
    "VIDEO_STRUCTURES",
    "DemoSet",
    "VideoStructure",
    "render_action",
    "render_chapters",
    "render_pattern",
    "render_set",
    "write_video",
]
