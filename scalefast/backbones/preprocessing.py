"""What a transformers checkpoint says about its input: mean, std and size, read from its JSON files.

The processor classes themselves need torchvision, and the class default of VideoMAE's (mean and std .5) is
wrong for the published weights. So the files are read, and a folder that states nothing is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalefast.backbones._files import read_json
from scalefast.backbones.spec import checked_colour
from scalefast.errors import InputError

__all__ = ["Preprocessing", "read_preprocessing"]

# in the order in which they are asked; transformers 5 can write several processors into one file
_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
_COMBINED, _PARTS = "processor_config.json", ("video_processor", "image_processor", "feature_extractor")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How decoded frames become the input of a network."""

    mean: tuple[float, float, float]
    """Subtracted from red, green, blue in [0, 1]."""
    std: tuple[float, float, float]
    """Divides red, green, blue."""
    size: int | None
    """Height and width after cropping; None where the file does not say."""
    file: Path
    """Where it is stated."""


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read `video_preprocessor_config.json`, else `preprocessor_config.json`, else `processor_config.json`.

    Raises:
        InputError: none is there, or it states no mean and std, or frames that are not square.
        DataError: it is not JSON.
    """
    stated = next(_candidates(folder), None)
    if stated is not None:
        path, values = stated
        mean, std = _normalisation(values, path=path)
        return Preprocessing(mean=mean, std=std, size=_size(values, path=path), file=path)
    raise InputError(
        f"{folder}: no {' or '.join(_FILES)}, so the mean and std of the input are unknown; copy the file "
        'from where the weights come from, or write one, for example {"image_mean": [0.485, 0.456, 0.406], '
        '"image_std": [0.229, 0.224, 0.225], "crop_size": {"height": 224, "width": 224}}'
    )


def _candidates(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name in _FILES:
        if (folder / name).is_file():
            yield folder / name, read_json(folder / name)
    if (folder / _COMBINED).is_file():
        combined = read_json(folder / _COMBINED)
        for part in _PARTS:
            if isinstance(combined.get(part), dict):
                yield folder / _COMBINED, combined[part]


def _normalisation(
    values: dict[str, Any], *, path: Path
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    if values.get("do_normalize", True):
        missing = [key for key in ("image_mean", "image_std") if values.get(key) is None]
        if missing:
            raise InputError(
                f"{path}: states no {' and no '.join(missing)}; expected 3 numbers each, for pixels in [0, 1]"
            )
        mean = checked_colour(values["image_mean"], owner=f"{path}: image_mean", name="mean")
        std = checked_colour(values["image_std"], owner=f"{path}: image_std", name="std")
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        raise InputError(f"{path}: rescale_factor must be a positive number, got {factor!r}")
    if math.isclose(255 * factor, 1.0, rel_tol=1e-6):
        return mean, std
    # (x * factor - mean) / std, written for x / 255
    scale = 255 * factor
    return checked_colour([m / scale for m in mean], owner=str(path), name="mean"), checked_colour(
        [s / scale for s in std], owner=str(path), name="std"
    )


def _size(values: dict[str, Any], *, path: Path) -> int | None:
    crop = values.get("crop_size") if values.get("do_center_crop") is not False else None
    stated = crop if crop is not None else values.get("size")
    if stated is None:
        return None
    if isinstance(stated, dict):
        sides = [stated[key] for key in ("height", "width", "shortest_edge") if stated.get(key) is not None]
    else:
        sides = list(stated) if isinstance(stated, (list, tuple)) else [stated]
    if (
        not sides
        or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides)
        or len(set(sides)) > 1
    ):
        raise InputError(f"{path}: expected a square size in pixels, found {stated!r}")
    return int(sides[0])
