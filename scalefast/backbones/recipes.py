"""Which clips a backbone takes of which data set, as Python functions: frames, stride, size, normalisation, views.

`recipe_for("videomae-b", "ssv2")` says all that an extraction needs, and prints as what it does. Sources: SCALE's
released extraction (16 clips of 16 frames of stride 4 for training, 5 x 3 test views; Something-Something with stride
2, not mirrored, 2 x 3 views), and the published evaluation of each backbone for its own stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.catalog import described
from scalefast.backbones.registry import REGISTRY
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import InputError
from scalefast.video import ClipRecipe, test_recipe, train_recipe

__all__ = ["DATASET_RULES", "DatasetRule", "ExtractionRecipe", "recipe_for"]


@dataclass(frozen=True, kw_only=True)
class DatasetRule:
    """What a data set asks of clips, whatever the backbone."""

    title: str
    """As its authors write it."""
    motion_has_sides: bool = False
    """Left and right have a meaning (\"pushing something from left to right\"), so that no clip is mirrored."""
    short_actions: bool = False
    """Videos of a few seconds that show one action whole: clips of half the usual stride."""
    temporal: int = 5
    """Starts of a test video's views."""
    positions: Literal["paper", "seconds"] = "paper"
    """How clip positions are kept: relative to the video's own clips, or in seconds where durations matter."""


DATASET_RULES: dict[str, DatasetRule] = {
    "kinetics400": DatasetRule(title="Kinetics-400"),
    "kinetics600": DatasetRule(title="Kinetics-600"),
    "kinetics700": DatasetRule(title="Kinetics-700"),
    "ucf101": DatasetRule(title="UCF101"),
    "hmdb51": DatasetRule(title="HMDB51"),
    "ssv2": DatasetRule(
        title="Something-Something v2", motion_has_sides=True, short_actions=True, temporal=2
    ),
    "lvu": DatasetRule(title="LVU", positions="seconds"),
}
"""Data set -> rule; the names are those of `scalefast.datasets`."""


@dataclass(frozen=True, kw_only=True)
class ExtractionRecipe:
    """All that an extraction does with a video; `print(recipe)` says it in words."""

    backbone: str
    """Name of the backbone."""
    dataset: str
    """Title of the data set; "any" where none was named."""
    train: ClipRecipe
    """Random clips for pretraining."""
    test: ClipRecipe
    """Evenly spread views."""
    positions: Literal["paper", "seconds", "fraction"]
    """How clip positions are kept."""
    mean: tuple[float, float, float]
    """Subtracted from red, green, blue in [0, 1]; the backbone does it."""
    std: tuple[float, float, float]
    """Divides red, green, blue."""
    pooling: str
    """How tokens become one vector, in words."""

    def __str__(self) -> str:
        train, test = self.train, self.test
        size = f"{train.num_frames} frames of stride {train.stride:g} at 30 fps, {train.size} x {train.size} pixels"
        mirrored = "mirrored half the time" if train.flip else "never mirrored"
        views = f"{test.clips // test.spatial_crops} x {test.spatial_crops}"
        numbers = " / ".join(", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return (
            f"{self.backbone} on {self.dataset}: {size}; mean / std {numbers}; {self.pooling}. "
            f"Training: {train.clips} random clips, short side {train.short_side[0]} to {train.short_side[1]}, "
            f"{mirrored}. Test: {views} views of {test.size} pixels. Positions: {self.positions}."
        )


def recipe_for(backbone: FrozenBackbone | BackboneSpec | str, dataset: str | None = None) -> ExtractionRecipe:
    """What an extraction of a data set with a backbone does, where nothing else is asked for.

    Frames, size, normalisation and pooling are the backbone's. So is the stride, halved for data sets of short actions
    unless the clip is long already (32 frames and more). Test views are of the backbone's size, so that train and
    test stores have one identity; the released evaluation takes 256 pixels: load the backbone with `size=256` for it.

    Args:
        backbone: as loaded, its spec, or a short name.
        dataset: a name of `DATASET_RULES`; None: the rules of Kinetics.

    Raises:
        InputError: an unknown data set or name.
    """
    if dataset is not None and dataset not in DATASET_RULES:
        raise InputError(f"no data set is named {dataset!r}; known: {', '.join(DATASET_RULES)}")
    rule = DATASET_RULES[dataset] if dataset is not None else DatasetRule(title="any videos")
    spec = backbone if isinstance(backbone, BackboneSpec) else _spec(backbone)
    stride = spec.stride
    if rule.short_actions and spec.num_frames < 32:
        stride = max(stride // 2, 1)
    return ExtractionRecipe(
        backbone=spec.name,
        dataset=rule.title,
        train=train_recipe(
            num_frames=spec.num_frames, stride=stride, size=spec.size, flip=not rule.motion_has_sides
        ),
        test=test_recipe(num_frames=spec.num_frames, stride=stride, size=spec.size, temporal=rule.temporal),
        positions=rule.positions,
        mean=spec.mean,
        std=spec.std,
        pooling=spec.pooling,
    )


def _spec(backbone: FrozenBackbone | str) -> BackboneSpec:
    if isinstance(backbone, FrozenBackbone):
        return backbone.spec
    entry = REGISTRY.get(backbone)
    if entry is None:
        raise InputError(
            f"no backbone is named {backbone!r}; load it and pass it, or name one of {', '.join(REGISTRY)}"
        )
    return described(backbone, entry)
