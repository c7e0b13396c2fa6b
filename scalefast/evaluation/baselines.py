"""What SCALE has to beat: poolings of the backbone's features, and SCALE as it was before training.

Legend: `N` videos, `D` backbone feature, `H` SCALE's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast.calibration import calibrate, scale_inputs
from scalefast.evaluation.representations import Representations

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["BASELINES", "COLUMNS", "TITLES", "TRAINED_BASELINES", "Columns", "initial_model", "initial_seed"]

BASELINES = ("mean", "mean_std", "mean_time", "max", "random_cls", "random_recommended")
"""Columns without anything learnt by SCALE. The two random ones are CLS and recommended representation of a
model with random weights: what the architecture, the clips' positions and more dimensions give by themselves."""

TRAINED_BASELINES = ("mlp", "attention_pool", "attentive_probe", "scratch", "clip", "random_clip_cls")
"""Columns of the protocols `nonlinear` and `authors` that owe nothing to pretraining."""

COLUMNS = (*BASELINES, "refined", "cls", "ensemble", "recommended")
"""All columns of a table, baselines first; the nonlinear protocol has its own."""

TITLES = {
    "mean": "mean pooling",
    "mean_std": "mean + standard deviation",
    "mean_time": "mean + course over time",
    "max": "max pooling",
    "random_cls": "untrained SCALE (CLS)",
    "random_recommended": "untrained SCALE (recommended)",
    "recommended": "SCALE (recommended)",
    "ensemble": "SCALE (ensemble)",
    "mlp": "an MLP",
    "attention_pool": "attention pooling",
    "attentive_probe": "an attentive probe",
    "scratch": "SCALE from scratch",
    "finetuned": "SCALE (fine-tuned)",
    "clip": "the clip alone",
    "random_clip_cls": "untrained SCALE ([clip, CLS])",
    "clip_cls": "SCALE ([clip, CLS])",
}
"""What a sentence calls a column."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """All representations of one split, SCALE's and the baselines'."""

    trained: Representations
    """Of the model under evaluation."""
    random: Representations
    """Of the same architecture with random weights."""

    def __getitem__(self, name: str) -> Tensor:
        if name.startswith("random_"):
            return self.random[name.removeprefix("random_")]
        return self.trained[name]


def initial_seed(record: dict[str, Any] | None, *, default: int) -> int:
    """Seed of the initial weights: that of the run, so that the baseline is the very model before training."""
    seed = ((record or {}).get("config") or {}).get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else default


def initial_model(model: SCALE, *, seed: int, store: FeatureStore | None = None) -> SCALE:
    """A model of the same sizes, with the weights that pretraining with `seed` starts from.

    torch's global generator is left as it was.

    Args:
        model: gives the sizes, the device and the dtype.
        seed: decides the weights.
        store: videos that a calibrated model is fitted to, as the trained one was at its end.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = type(model)(**model.config())
    like = next(model.parameters())
    fresh = fresh.to(device=like.device, dtype=like.dtype).eval()
    if store is not None and fresh.calibrated:
        scale_inputs(fresh, store)
        calibrate(fresh, store)
    return fresh
