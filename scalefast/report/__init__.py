"""The HTML report of a run: self-contained, works offline."""

from __future__ import annotations

from scalefast.report._report import report
from scalefast.report.projection import pca, tsne

__all__ = ["pca", "report", "tsne"]
