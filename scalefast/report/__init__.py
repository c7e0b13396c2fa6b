"""The HTML report of a run: self-contained, works offline."""

from __future__ import annotations

from scalefast.report._report import compose, report
from scalefast.report.drawing import Drawing
from scalefast.report.page import Page
from scalefast.report.projection import pca, tsne

__all__ = ["Drawing", "Page", "compose", "pca", "report", "tsne"]
