"""What is varied: one thing at a time, around a base configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalefast.errors import InputError
from scalefast.training import PretrainConfig

__all__ = ["STUDIES", "Variant", "variants_of"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    study: str
    """What is varied, one of `STUDIES`."""

    name: str
    """What this row has of it."""

    config: PretrainConfig
    """The whole configuration; its seed is set for each run."""

    is_base: bool
    """Whether it is the base configuration itself."""


def _weights(masked: float, sets: float, time: float) -> dict[str, float]:
    return {"mcm_weight": masked, "set_weight": sets, "time_weight": time}


_PAPER: dict[str, Any] = {
    **_weights(0.5, 0.5, 0.0),
    "center_sets": False,
    "calibrated": False,
    "mask_ratio": 0.25,
    "target": "trained",
    "koleo_weight": 0.0,
    "variance_weight": 0.0,
}
_CENTRED = {**_PAPER, "center_sets": True, "calibrated": True}

STUDIES: dict[str, dict[str, Mapping[str, Any]]] = {
    "losses": {
        "MCM": _weights(0.5, 0.0, 0.0),
        "SET": _weights(0.0, 0.5, 0.0),
        "SET over time": _weights(0.0, 0.0, 0.5),
        "MCM, SET": _weights(0.5, 0.5, 0.0),
        "mostly MCM": _weights(0.8, 0.2, 0.0),
        "mostly SET": _weights(0.2, 0.8, 0.0),
    },
    "time": {
        "SET of CLS": _weights(0.5, 0.5, 0.0),
        "SET of time": _weights(0.5, 0.0, 0.5),
        "both, .25 each": _weights(0.5, 0.25, 0.25),
        "both, .5 each": _weights(0.5, 0.5, 0.5),
        "both, .375 each, MCM .25": _weights(0.25, 0.375, 0.375),
        "CLS .5, time .25, MCM .25": _weights(0.25, 0.5, 0.25),
    },
    "mask_ratio": {f"{value:g}": {"mask_ratio": value} for value in (0.1, 0.25, 0.4, 0.5, 0.6, 0.75)},
    "views": {f"{value}": {"views": value} for value in (2, 4, 8)},
    "layers": {f"{value}": {"num_layers": value} for value in (1, 2, 4)},
    "width": {f"{value}": {"hidden_dim": value} for value in (64, 128, 256, 512)},
    "temperature": {f"{value:g}": {"temperature": value} for value in (0.05, 0.1, 0.2, 0.4)},
    "targets": {value: {"target": value} for value in ("trained", "fixed", "ema")},
    "positions": {value: {"position_use": value} for value in ("all", "time", "none")},
    "same_video": {value: {"same_video": value} for value in ("negative", "exclude")},
    "centring": {
        "features as they are": {"center_sets": False},
        "less the set's mean": {"center_sets": True},
    },
    "calibration": {"parts of length 1": {"calibrated": False}, "fitted": {"calibrated": True}},
    "parts": {
        "mean, CLS": {"parts": ("mean", "cls")},
        "and refined, its deviation": {"parts": ("mean", "refined", "refined_std", "cls")},
        "and its course": {"parts": ("mean", "refined", "refined_std", "cls", "time")},
        "std for refined": {"parts": ("mean", "std", "refined_std", "cls")},
        "std for refined, and its course": {"parts": ("mean", "std", "refined_std", "cls", "time")},
        "and self-similarity": {"parts": ("mean", "std", "refined_std", "cls", "time", "self_similarity")},
    },
    "regularisers": {
        "none": {"variance_weight": 0.0, "koleo_weight": 0.0},
        "KoLeo .1": {"variance_weight": 0.0, "koleo_weight": 0.1},
        "VICReg 1": {"variance_weight": 1.0, "koleo_weight": 0.0},
    },
    "recipes": {
        "paper": _PAPER,
        "centred": _CENTRED,
        "centred, mask .5": {**_CENTRED, "mask_ratio": 0.5},
        "centred, mask .5, fixed": {**_CENTRED, "mask_ratio": 0.5, "target": "fixed"},
        "centred, mask .5, KoLeo": {**_CENTRED, "mask_ratio": 0.5, "koleo_weight": 0.1},
        "centred, mask .5, fixed, KoLeo": {
            **_CENTRED,
            "mask_ratio": 0.5,
            "target": "fixed",
            "koleo_weight": 0.1,
        },
        "centred, mask .5, fixed, KoLeo, SET over time": {
            **_CENTRED,
            **_weights(0.25, 0.5, 0.25),
            "mask_ratio": 0.5,
            "target": "fixed",
            "koleo_weight": 0.1,
        },
        "centred, mask .5, VICReg": {**_CENTRED, "mask_ratio": 0.5, "variance_weight": 0.5},
    },
    "schedule": {f"{share:g} x": {"epochs": share} for share in (0.5, 1, 2)},
}
"""`{study: {name of a row: fields that it sets}}`; of `schedule`, epochs as a multiple of the base's."""


def variants_of(base: PretrainConfig, *, studies: Sequence[str], clips: int) -> list[Variant]:
    """The rows of some studies, without those that need more clips than a video has.

    Args:
        base: the configuration around which one thing is varied.
        studies: names, in the order of the table.
        clips: of a video in the training store.

    Raises:
        InputError: an unknown study, or the base itself needs more clips.
    """
    unknown = [name for name in studies if name not in STUDIES]
    if unknown or not studies:
        raise InputError(
            f"studies must be some of {', '.join(STUDIES)}; got {', '.join(unknown) if unknown else 'none'}"
        )
    if 2 * base.views > clips:
        raise InputError(
            f"two disjoint sets of {base.views} clips need {2 * base.views} clips a video, but the store has {clips}: "
            f"give fewer views"
        )
    found = []
    for study in dict.fromkeys(studies):
        for name, changes in STUDIES[study].items():
            config = base.replace(**_resolved(changes, base))
            if 2 * config.views <= clips:
                found.append(Variant(study=study, name=name, config=config, is_base=config == base))
    return found


def _resolved(changes: Mapping[str, Any], base: PretrainConfig) -> dict[str, Any]:
    if "epochs" in changes:
        return {"epochs": max(1, round(changes["epochs"] * base.epochs))}
    return dict(changes)
