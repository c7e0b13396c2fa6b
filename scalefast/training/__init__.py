"""Self-supervised pretraining of SCALE on a feature store: configuration, trainer, run folder."""

from __future__ import annotations

from scalefast.training.config import PretrainConfig
from scalefast.training.recipes import k400, paper, recommended, ucf101
from scalefast.training.run import Run, load_run
from scalefast.training.trainer import RunResult, pretrain

__all__ = [
    "PretrainConfig",
    "Run",
    "RunResult",
    "k400",
    "load_run",
    "paper",
    "pretrain",
    "recommended",
    "ucf101",
]
