"""A rendered data set of action videos on which SCALE can be tried without downloading anything."""

from __future__ import annotations

from scalefast.demo.actions import CLASSES, render_action
from scalefast.demo.dataset import DemoSet, render_set, write_video

__all__ = ["CLASSES", "DemoSet", "render_action", "render_set", "write_video"]
