"""Augmentations with one draw for all frames of a clip, as CVRL and SCALE's "byol" recipe have them.

Sources: arXiv 2008.03800, section 3.3 and the released code (CVRL); SCALE's released extraction ("byol"). What is drawn
is plain data, a pure function of (seed, epoch, video id, clip); `augment` applies it to decoded clips on any device.
Crop and mirroring are in the `ClipSpec`: the decoder does them on the smallest data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scalefast.errors import InputError
from scalefast.video._sampling import uniform_draws

__all__ = [
    "Augmentation",
    "AugmentationRecipe",
    "byol_augmentation",
    "crop_box",
    "cvrl_augmentation",
    "draw_augmentations",
]

_DRAWS = 16  # jitter, 4 factors, 4 ranks of their order, gray, blur, sigma, solarise; three spare


@dataclass(frozen=True, kw_only=True)
class AugmentationRecipe:
    """Ranges and probabilities. A strength s (SimCLR's) draws a factor from [1 - s, 1 + s], the hue from [-s, s]."""

    area: tuple[float, float]
    """Share of the frame that the crop takes."""
    aspect: tuple[float, float]
    """Width / height of the crop, drawn log-uniformly."""
    flip: float = 0.5
    """Probability of mirroring."""
    jitter: float = 0.8
    """Probability of the colour jitter."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """In turns of the colour circle, at most .5."""
    gray: float = 0.2
    """Probability of losing all colour."""
    blur: float = 0.0
    """Probability of the Gaussian blur."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Of the blur, pixels."""
    solarise: float = 0.0
    """Probability of inverting what is brighter than half."""

    def __post_init__(self) -> None:
        for name in ("area", "aspect", "sigma"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high:
                raise InputError(f"augmentation: expected 0 < low <= high for {name}, got ({low}, {high})")
        if self.area[1] > 1.0:
            raise InputError(f"augmentation: expected area at most 1, got {self.area}")
        for name in ("flip", "jitter", "gray", "blur", "solarise"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(
                    f"augmentation: expected a probability for {name}, got {getattr(self, name)}"
                )
        for name, most in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            if not 0.0 <= getattr(self, name) <= most:
                raise InputError(f"augmentation: expected {name} in [0, {most}], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to one clip: numbers, the same for all of its frames. Neutral values do nothing."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """Turns of the colour circle."""
    order: tuple[int, int, int, int] = (0, 1, 2, 3)
    """In which brightness (0), contrast (1), saturation (2) and hue (3) are changed."""
    gray: bool = False
    sigma: float = 0.0
    """Of the blur, pixels; 0: no blur."""
    solarise: bool = False


def cvrl_augmentation(view: int) -> AugmentationRecipe:
    """CVRL's recipe for view 1 (always blurred) or view 2 (blurred and solarised now and then)."""
    if view not in (1, 2):
        raise InputError(f"expected view 1 or 2, got {view!r}")
    return AugmentationRecipe(
        area=(0.3, 1.0),
        aspect=(0.5, 2.0),
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        blur=1.0 if view == 1 else 0.1,
        solarise=0.0 if view == 1 else 0.2,
    )


def byol_augmentation() -> AugmentationRecipe:
    """SCALE's "byol" recipe for the clips of rhoBYOL's backbone."""
    return AugmentationRecipe(
        area=(0.2, 0.766),
        aspect=(0.75, 1.333),
        brightness=0.6,
        contrast=0.6,
        saturation=0.6,
        hue=0.15,
        blur=0.5,
    )


def crop_box(
    recipe: AugmentationRecipe, *, height: int, width: int, draws: list[float]
) -> tuple[float, float, float, float]:
    """(top, left, height, width) of a random crop, from three uniform numbers in [0, 1).

    A box of the drawn area and aspect that does not fit into the frame is cut to it, where others draw anew: the
    number of draws stays fixed. The place takes both coordinates from one draw's leading and trailing bits.
    """
    area = (recipe.area[0] + draws[0] * (recipe.area[1] - recipe.area[0])) * height * width
    low, high = (math.log(value) for value in recipe.aspect)
    aspect = math.exp(low + draws[1] * (high - low))
    tall, wide = min(math.sqrt(area / aspect), height), min(math.sqrt(area * aspect), width)
    shifted = draws[2] * 65536.0
    return (
        (shifted - math.floor(shifted)) * (height - tall),
        math.floor(shifted) / 65536.0 * (width - wide),
        tall,
        wide,
    )


def draw_augmentations(
    recipe: AugmentationRecipe, *, seed: int, video_id: str, clips: int, epoch: int = 0
) -> list[Augmentation]:
    """One augmentation for each of a video's clips, a pure function of (seed, epoch, video id, clip).

    Raises:
        InputError: seed or epoch out of range.
    """
    draws = uniform_draws(seed=seed, video_id=video_id, epoch=epoch, count=_DRAWS * clips, purpose=2)
    return [_augmentation(recipe, draws[_DRAWS * k : _DRAWS * (k + 1)]) for k in range(clips)]


def _augmentation(recipe: AugmentationRecipe, draws: list[float]) -> Augmentation:
    jitter, brightness, contrast, saturation, hue, *ranks, gray, blur, sigma, solarise = draws[:13]
    low, high = recipe.sigma
    gone, inverted = gray < recipe.gray, solarise < recipe.solarise
    width = low + sigma * (high - low) if blur < recipe.blur else 0.0
    if jitter >= recipe.jitter:
        return Augmentation(gray=gone, sigma=width, solarise=inverted)
    first, second, third, fourth = sorted(range(4), key=ranks.__getitem__)
    return Augmentation(
        brightness=_factor(brightness, recipe.brightness),
        contrast=_factor(contrast, recipe.contrast),
        saturation=_factor(saturation, recipe.saturation),
        hue=(2.0 * hue - 1.0) * recipe.hue,
        order=(first, second, third, fourth),
        gray=gone,
        sigma=width,
        solarise=inverted,
    )


def _factor(u: float, strength: float) -> float:
    return 1.0 + (2.0 * u - 1.0) * strength
