"""How clips are cut from a video: the recipes of the method's training and test clips, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from scalefast.errors import InputError

__all__ = ["ClipRecipe", "test_recipe", "train_recipe"]


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """Clips of one video. Kept in a store's provenance, so that features of different recipes are not mixed.

    Raises:
        InputError: a field is out of range.
    """

    name: str
    """For people: what the recipe is for."""
    sampling: Literal["random", "even"] = "random"
    """random: start, scale, place and flip are drawn for each clip. even: all fixed, and no flip."""
    clips: int = 16
    """Clips of one video."""
    spatial_crops: int = 1
    """Crops at every even start: 1 (centre) or 3 (both ends of the longer side, and centre)."""
    num_frames: int = 16
    """Frames of a clip, T."""
    stride: float = 4.0
    """A clip spans `num_frames * stride` frames at `nominal_fps`, whatever the video's own rate."""
    nominal_fps: float = 30.0
    """Rate at which the span is measured."""
    size: int = 224
    """Side of the square output, pixels."""
    short_side: tuple[int, int] = (256, 320)
    """random: the frame's short side is scaled to a size drawn from this range, then cropped."""
    flip: bool = True
    """random: mirror with probability one half."""

    def __post_init__(self) -> None:
        if self.sampling not in ("random", "even"):
            raise _wrong(f"expected sampling 'random' or 'even', got {self.sampling!r}")
        for name in ("clips", "num_frames", "size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise _wrong(f"expected an integer >= 1 for {name}, got {value!r}")
        if not (self.stride > 0 and self.nominal_fps > 0):
            raise _wrong(f"expected positive numbers, got {self.stride = }, {self.nominal_fps = }")
        if self.spatial_crops not in (1, 3) or self.clips % self.spatial_crops:
            crops = f"{self.spatial_crops = }, {self.clips = }"
            raise _wrong(f"expected spatial_crops 1 or 3, and a divisor of clips, got {crops}")
        if self.sampling == "random" and self.spatial_crops != 1:
            raise _wrong("random clips have one crop each (spatial_crops = 1)")
        low, high = self.short_side
        if self.sampling == "random" and not self.size <= low <= high:
            raise _wrong(f"expected size <= low <= high, got {self.size = }, {self.short_side = }")

    def span(self, fps: float) -> float:
        """Length of a clip in frames of a video with `fps` frames per second: 64 at 30, 53.3 at 25, at least 1."""
        return max(self.num_frames * self.stride * fps / self.nominal_fps, 1.0)

    def is_short(self, *, num_frames: int, fps: float) -> bool:
        """Whether a video is too short for one clip, so that its last frame would be repeated."""
        return num_frames < math.floor(self.span(fps) + 1e-6)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` gives the recipe back."""
        return {**asdict(self), "short_side": list(self.short_side)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClipRecipe:
        """Inverse of `to_dict`; InputError on unknown and on missing keys."""
        known = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(values) - known), sorted(known - set(values))
        if unknown or missing:
            raise InputError(
                f"clip recipe: unknown keys {unknown}, missing keys {missing}; expected {sorted(known)}"
            )
        return cls(**{**values, "short_side": tuple(values["short_side"])})


def _wrong(message: str) -> InputError:
    return InputError(f"clip recipe: {message}")


def train_recipe(
    *, num_frames: int = 16, stride: float = 4.0, size: int = 224, clips: int = 16, flip: bool = True
) -> ClipRecipe:
    """Random clips for training, the authors' "linear" recipe.

    Short side 256 to 320 for a 224 crop, in proportion for other sizes; mirrored with probability one half.
    Something-Something takes `stride=2, flip=False`.
    """
    scales = (max(size, round(size * 256 / 224)), max(size, round(size * 320 / 224)))
    return ClipRecipe(
        name="train",
        sampling="random",
        clips=clips,
        num_frames=num_frames,
        stride=stride,
        size=size,
        short_side=scales,
        flip=flip,
    )


def test_recipe(
    *, num_frames: int = 16, stride: float = 4.0, size: int = 256, temporal: int = 5, spatial: int = 3
) -> ClipRecipe:
    """Test views: `temporal` even starts times `spatial` crops of the whole short side, scaled to `size`.

    5 x 3 at 256 pixels for Kinetics, UCF101 and HMDB51; 2 x 3 for Something-Something.
    """
    return ClipRecipe(
        name="test",
        sampling="even",
        clips=temporal * spatial,
        spatial_crops=spatial,
        num_frames=num_frames,
        stride=stride,
        size=size,
        short_side=(size, size),
        flip=False,
    )


test_recipe.__test__ = False  # type: ignore[attr-defined]  # or pytest takes it for a test
