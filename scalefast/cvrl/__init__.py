"""CVRL: training a clip encoder without labels, where no pretrained one is at hand (arXiv 2008.03800).

Names are imported when they are first used, so that worker processes which only decode do not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalefast.cvrl._end_to_end import pretrain_end_to_end
    from scalefast.cvrl._finetune import ClipAccuracy, FinetuneConfig, Finetuned, finetune
    from scalefast.cvrl._launch import ClipRunResult, RunOptions
    from scalefast.cvrl.config import ClipTraining, CVRLConfig
    from scalefast.cvrl.linear import evaluate_linear
    from scalefast.cvrl.recipes import demo, k400
    from scalefast.cvrl.task import CVRLLosses, CVRLTask
    from scalefast.cvrl.trainer import train_cvrl

__all__ = [
    "CVRLConfig",
    "CVRLLosses",
    "CVRLTask",
    "ClipAccuracy",
    "ClipRunResult",
    "ClipTraining",
    "FinetuneConfig",
    "Finetuned",
    "RunOptions",
    "demo",
    "evaluate_linear",
    "finetune",
    "k400",
    "pretrain_end_to_end",
    "train_cvrl",
]

_HOMES = {
    "CVRLConfig": "config",
    "CVRLLosses": "task",
    "CVRLTask": "task",
    "ClipAccuracy": "_finetune",
    "ClipRunResult": "_launch",
    "ClipTraining": "config",
    "FinetuneConfig": "_finetune",
    "Finetuned": "_finetune",
    "RunOptions": "_launch",
    "demo": "recipes",
    "evaluate_linear": "linear",
    "finetune": "_finetune",
    "k400": "recipes",
    "pretrain_end_to_end": "_end_to_end",
    "train_cvrl": "trainer",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
