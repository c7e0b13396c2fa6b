"""What pretraining optimises: the losses of a step, and how they may be varied; each option has its ablation.

Source of the options: moving targets as in BYOL (arXiv 2006.07733), variance and covariance as in VICReg
(arXiv 2105.04906), KoLeo as in "Spreading vectors for similarity search" (arXiv 1806.03198).

Shapes: `B` videos, `H` width; leading dimensions are models that are trained at once.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Objective", "PretrainingLosses", "SameVideo", "Target", "koleo", "variance_covariance"]

SameVideo = Literal["negative", "exclude"]
"""What the other clips of a masked clip's own video are to it in MCM: negatives as all others, or no candidates."""

Target = Literal["trained", "fixed", "ema"]
"""What MCM predicts of a clip: its feature through a head trained along; the same with a stopped gradient, so that
the head stays the random projection it starts as; or the clip as a moving average of the whole model refines it, with
nothing masked (as data2vec, arXiv 2202.03555)."""


@dataclass(frozen=True)
class PretrainingLosses:
    """Losses and accuracies of a step, each 0-d; with several ranks those of the global batch."""

    loss: Tensor
    """(set_loss + mcm_loss) / 2, or as the objective weighs them; to call backward on."""
    mcm_loss: Tensor
    """InfoNCE of every masked clip's prediction against the targets of all clips of the batch."""
    set_loss: Tensor
    """Symmetric InfoNCE between the two CLS of each video."""
    time_loss: Tensor
    """Symmetric InfoNCE between the courses over time of each video's two sets; 0 where `time_weight` is."""
    mcm_accuracy: Tensor
    """Share of masked clips whose own target ranks first, in [0, 1]."""
    set_accuracy: Tensor
    """Share of sets whose own partner's CLS ranks first, in [0, 1]."""
    time_accuracy: Tensor
    """Share of sets whose own partner's course ranks first, in [0, 1]; 0 where `time_weight` is."""
    overflow: Tensor
    """Bool: more clips were masked than the static number of rows holds on a GPU, so that some were left out of the MCM
    loss. It happens with a mask of one's own that masks more than `mask_ratio`; never on CPU."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The objective; the defaults are the paper's.

    Raises:
        ValueError: a field is out of its range, or nothing is left to optimise.
    """

    mcm_weight: float = 0.5
    """Weight of masked clip modelling; 0 leaves it out."""

    set_weight: float = 0.5
    """Weight of set invariance of CLS; 0 leaves it out."""

    time_weight: float = 0.0
    """Weight of set invariance of the course over time of the refined clips (`scalefast.time_moments`), through a head
    of its own; 0 leaves it out."""

    same_video: SameVideo = "negative"
    """Clips of a masked clip's own video among MCM's candidates."""

    target: Target = "trained"
    """What MCM predicts."""

    target_momentum: float = 0.996
    """Share of itself that the moving average of the model keeps in a step."""

    variance_weight: float = 0.0
    """Weight of VICReg's variance and covariance terms on CLS."""

    koleo_weight: float = 0.0
    """Weight of KoLeo on CLS: the logarithm of the distance to the nearest other video."""

    def __post_init__(self) -> None:
        for name, choices in (("same_video", SameVideo), ("target", Target)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(map(repr, get_args(choices)))
                raise ValueError(f"{name} must be one of {known}; got {getattr(self, name)!r}")
        for name in ("mcm_weight", "set_weight", "time_weight", "variance_weight", "koleo_weight"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number >= 0; got {getattr(self, name)}")
        if not 0.0 <= self.target_momentum < 1.0:
            raise ValueError(f"target_momentum must be in [0, 1); got {self.target_momentum}")
        if self.mcm_weight == self.set_weight == self.time_weight == 0.0:
            raise ValueError(
                "mcm_weight, set_weight and time_weight are all 0: nothing is left to learn from"
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the fields, which a training configuration has too."""
        return tuple(field.name for field in dataclasses.fields(cls))


def variance_covariance(rows: Tensor) -> Tensor:
    """`relu(1 - std).mean() + (off-diagonal covariance ** 2).sum() / 25 / H`: [..., B, H] -> [...], in fp32.

    VICReg's two terms against collapse, in the ratio of its weights (25 to 1).
    """
    with torch.autocast(rows.device.type, enabled=False):
        freedom = max(1, rows.shape[-2] - 1)
        centred = rows.float() - rows.float().mean(-2, keepdim=True)
        deviation = (centred.square().sum(-2) / freedom + 1e-4).sqrt()
        covariance = centred.mT @ centred / freedom
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        off_diagonal = covariance.square().sum((-2, -1)) - diagonal.square().sum(-1)
        return F.relu(1.0 - deviation).mean(-1) + off_diagonal / 25.0 / rows.shape[-1]


def koleo(rows: Tensor) -> Tensor:
    """Minus the mean log distance of each row to its nearest other row, all of length 1: [..., B, H] -> [...], fp32."""
    with torch.autocast(rows.device.type, enabled=False):
        unit = F.normalize(rows.float(), dim=-1)
        with torch.no_grad():
            similarity = unit @ unit.mT
            similarity.diagonal(dim1=-2, dim2=-1).fill_(-math.inf)
            chosen = torch.zeros_like(similarity).scatter_(-1, similarity.argmax(-1, keepdim=True), 1.0)
        # A product, not an index: its gradient needs no atomic adds, so that a GPU gives the same bits twice.
        return -(unit - chosen @ unit).norm(dim=-1).clamp(min=1e-8).log().mean(-1)
