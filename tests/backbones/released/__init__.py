"""Random checkpoints laid out as the authors' files are, and plain networks that compute on them directly.

The networks read the authors' names and use no module of the library or of transformers: one product, one
softmax and one normalisation after the other, in float64.
"""

from __future__ import annotations

from released._common import IMAGENET, drawn
from released._slow import contrastive_shapes, rhobyol_shapes, slow, slow_shapes
from released._slowfast import slowfast, slowfast_shapes
from released._svt import svt, svt_shapes
from released._videomae import videomae, videomae_shapes
from released._vjepa2 import vjepa2, vjepa2_shapes

__all__ = [
    "IMAGENET",
    "contrastive_shapes",
    "drawn",
    "rhobyol_shapes",
    "slow",
    "slow_shapes",
    "slowfast",
    "slowfast_shapes",
    "svt",
    "svt_shapes",
    "videomae",
    "videomae_shapes",
    "vjepa2",
    "vjepa2_shapes",
]
