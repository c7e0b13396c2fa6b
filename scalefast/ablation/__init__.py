"""Ablations in one command: what each part of the recipe is worth on one's own features."""

from __future__ import annotations

from scalefast.ablation.choice import choose
from scalefast.ablation.plots import plot
from scalefast.ablation.run import ablate
from scalefast.ablation.studies import STUDIES, Variant
from scalefast.ablation.table import AblationTable, Row

__all__ = ["STUDIES", "AblationTable", "Row", "Variant", "ablate", "choose", "plot"]
