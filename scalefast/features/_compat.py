"""Whether features of two stores may be mixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from scalefast.errors import StoreError

if TYPE_CHECKING:
    from scalefast.features.store import FeatureStore

__all__ = ["check_compatible"]

_RECIPE = ("num_frames", "stride", "nominal_fps")
"""What makes a clip. Number of clips, crops, flips and size may differ: training and test views do."""


def check_compatible(first: FeatureStore, second: FeatureStore) -> None:
    """Refuse to mix features that do not live in one space.

    Compared are the feature dimension and, where both stores state them, the backbone's name, weights and
    preprocessing, the frames, stride and frame rate of a clip, and the form of the positions. A store made
    from one's own arrays without a `backbone` in its provenance is compared by dimension alone.

    Raises:
        StoreError: names both stores and every difference.
    """
    found = list(_differences(first, second))
    if found:
        raise StoreError(f"{first.path} and {second.path} cannot be mixed: {'; '.join(found)}")


def _differences(first: FeatureStore, second: FeatureStore) -> Iterator[str]:
    if first.feature_dim != second.feature_dim:
        yield f"feature dimension {first.feature_dim} and {second.feature_dim}"
    one, two = _facts(first.provenance), _facts(second.provenance)
    for key in one:
        if key in two and one[key] != two[key]:
            yield f"{key} {_short(one[key])} and {_short(two[key])}"


def _facts(provenance: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    backbone = provenance.get("backbone")
    if isinstance(backbone, str):
        facts["backbone name"] = backbone
    elif isinstance(backbone, dict):
        facts |= {f"backbone {key}": value for key, value in backbone.items() if key not in _VOLATILE}
    recipe = provenance.get("recipe")
    if isinstance(recipe, dict):
        facts |= {f"clip {key}": recipe[key] for key in _RECIPE if key in recipe}
    if "positions" in provenance:
        facts["positions"] = provenance["positions"]
    return facts


_VOLATILE = ("device", "dtype", "size")
"""Where and how it was computed, and the side of the frames: test views may be larger."""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"
