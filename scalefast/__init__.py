"""scalefast: video representations from sets of clip features, trained in minutes (SCALE, arXiv 2211.17042).

Only torch and numpy are imported here, and only when a name is first used, so that `import scalefast` stays
cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from scalefast._version import __version__

if TYPE_CHECKING:
    from scalefast import kernels
    from scalefast.backbones import load_backbone
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE, SCALEOutput
    from scalefast.official import load_official
    from scalefast.pretraining import PretrainingLosses, SCALEPretraining

__all__ = [
    "SCALE",
    "FeatureStore",
    "PretrainingLosses",
    "SCALEOutput",
    "SCALEPretraining",
    "__version__",
    "kernels",
    "load_backbone",
    "load_official",
]

_HOMES = {
    "SCALE": "scalefast.model",
    "SCALEOutput": "scalefast.model",
    "SCALEPretraining": "scalefast.pretraining",
    "PretrainingLosses": "scalefast.pretraining",
    "load_official": "scalefast.official",
    "load_backbone": "scalefast.backbones",
    "FeatureStore": "scalefast.features",
}


def __getattr__(name: str) -> Any:
    if name == "kernels":
        return importlib.import_module("scalefast.kernels")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'scalefast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
