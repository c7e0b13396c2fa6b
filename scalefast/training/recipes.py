"""Recipes: functions that return the configuration of a run, to be changed with `.replace(...)`."""

from __future__ import annotations

from scalefast.training.config import PretrainConfig

__all__ = ["RECIPES", "k400", "paper", "recommended", "ucf101"]


def paper() -> PretrainConfig:
    """The paper's values (SCALE, arXiv 2211.17042), as released, for Kinetics-400: 200 epochs, batch 512."""
    return PretrainConfig()


def recommended() -> PretrainConfig:
    """The paper's values but for what did better on the validation splits of several feature sets (docs/ablation.md).

    The model sees what changes within a video (`center_sets`), more clips are masked, they are predicted through a
    random projection (`target`) and count for less (`mcm_weight`), sets are matched by their course over time beside
    CLS (`time_weight`), KoLeo keeps videos apart, and the model knows how its parts are put together (`calibrated`):
    how the clips scatter and when they change beside their mean and CLS (`parts`).
    """
    return PretrainConfig(
        center_sets=True,
        calibrated=True,
        parts=("mean", "std", "refined_std", "cls", "time", "self_similarity"),
        mask_ratio=0.5,
        target="fixed",
        mcm_weight=0.25,
        time_weight=0.25,
        koleo_weight=0.1,
    )


def k400() -> PretrainConfig:
    """Kinetics-400 (and other large sets): the paper's values."""
    return paper()


def ucf101() -> PretrainConfig:
    """UCF101 and sets of about its size (10,000 videos): 1000 epochs, all else as on Kinetics-400."""
    return PretrainConfig(epochs=1000)


RECIPES = {"paper": paper, "k400": k400, "ucf101": ucf101, "recommended": recommended}
"""The recipes by the names under which the command line offers them."""
