"""Several small models trained at once: one batched product where each alone would make a small one."""

from __future__ import annotations

from scalefast.training.batched.shapes import VARYING, at_once, pays, shape_of, stackable
from scalefast.training.batched.together import pretrain_together

__all__ = ["VARYING", "at_once", "pays", "pretrain_together", "shape_of", "stackable"]
