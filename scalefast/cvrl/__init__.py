"""CVRL: training a clip encoder without labels, where no pretrained one is at hand (arXiv 2008.03800)."""

from __future__ import annotations

from scalefast.cvrl.task import CVRLLosses, CVRLTask

__all__ = ["CVRLLosses", "CVRLTask"]
