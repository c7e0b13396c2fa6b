"""What a backbone expects and yields: the facts that extraction needs and that a feature store records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scalefast.errors import InputError

__all__ = ["BackboneSpec", "checked_colour"]


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Input and output of one clip encoder."""

    name: str
    """Short name, folder name or hub id; never a path, so that stores made on two machines are equal."""
    architecture: str
    """Class of the network, for example `VideoMAEForVideoClassification` or `R3D-18`."""
    feature_dim: int
    """D, the width of the feature of a clip."""
    num_frames: int
    """T, frames in a clip."""
    stride: int
    """Recommended distance of two frames of a clip in frames of a 30 fps video; not part of the weights."""
    size: int
    """Height and width of a frame in pixels."""
    mean: tuple[float, float, float]
    """Mean of red, green, blue in [0, 1], subtracted from the frames."""
    std: tuple[float, float, float]
    """Standard deviation of red, green, blue in [0, 1], by which the frames are divided."""
    pooling: str
    """How tokens or positions become one vector, in words."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the weights come from (`{"kind": "hub", "id": ..., "revision": ...}` and the like), JSON-able."""

    def __post_init__(self) -> None:
        for name in ("feature_dim", "num_frames", "stride", "size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"backbone {self.name!r}: {name} must be a positive integer, got {value!r}")
        owner = f"backbone {self.name!r}"
        object.__setattr__(self, "mean", checked_colour(self.mean, owner=owner, name="mean"))
        object.__setattr__(self, "std", checked_colour(self.std, owner=owner, name="std"))


def checked_colour(value: Any, *, owner: str, name: Literal["mean", "std"]) -> tuple[float, float, float]:
    """Three numbers for red, green and blue, as floats; those of `std` positive.

    Raises:
        InputError: anything else, naming `owner` and `name`.
    """
    numbers = isinstance(value, Sequence) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
    )
    if not numbers or len(value) != 3 or not all(math.isfinite(v) for v in value):
        raise InputError(f"{owner}: {name} must be 3 finite numbers for red, green and blue, got {value!r}")
    if name == "std" and min(value) <= 0:
        raise InputError(f"{owner}: std must be positive, got {value!r}")
    red, green, blue = (float(v) for v in value)
    return red, green, blue
