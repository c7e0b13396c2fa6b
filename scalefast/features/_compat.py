"""Whether features of two stores may be mixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from scalefast.errors import StoreError

if TYPE_CHECKING:
    from scalefast.features.store import FeatureStore

__all__ = ["check_compatible"]

_CLIP = ("num_frames", "stride", "nominal_fps")
"""What makes a clip. Number of clips, crops and flips may differ: those of training and test views do."""

_BACKBONE = ("name", "architecture", "weights_hash", "num_frames", "size", "mean", "std", "pooling")
"""What decides the features; precision and the place of the weights do not."""


def check_compatible(first: FeatureStore, second: FeatureStore) -> None:
    """Refuse to mix features that do not live in one space.

    Compared are the feature dimension and, where both stores state them: the backbone (its `identity`, a hash
    of weights and preprocessing; where one store has none, the name and the hash of the weights), the frames,
    stride and frame rate of a clip, and the form of the positions. A store made from one's own arrays without
    a `backbone` in its provenance is compared by the rest.

    Raises:
        StoreError: names both stores and every difference.
    """
    found = list(_differences(first, second))
    if found:
        raise StoreError(f"{first.path} and {second.path} cannot be mixed: {'; '.join(found)}")


def _differences(first: FeatureStore, second: FeatureStore) -> Iterator[str]:
    one, two = first.provenance, second.provenance
    if first.feature_dim != second.feature_dim:
        yield f"feature dimension {first.feature_dim} and {second.feature_dim}"
    yield from _unequal("backbone", *_backbones(one, two))
    yield from _unequal("clip", _part(one, "recipe", _CLIP), _part(two, "recipe", _CLIP))
    if one.get("positions", two.get("positions")) != two.get("positions", one.get("positions")):
        yield f"positions {one['positions']!r} and {two['positions']!r}"


def _backbones(one: dict[str, Any], two: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to compare of the two backbones: nothing where they are the same."""
    identities = [_part(provenance, "backbone", ("identity",)) for provenance in (one, two)]
    if not all(identities):
        weights = ("name", "weights_hash")
        return _part(one, "backbone", weights), _part(two, "backbone", weights)
    if identities[0] == identities[1]:
        return {}, {}
    facts = _part(one, "backbone", _BACKBONE), _part(two, "backbone", _BACKBONE)
    return facts if facts[0] != facts[1] else (identities[0], identities[1])


def _part(provenance: dict[str, Any], name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    part = provenance.get(name)
    if isinstance(part, str):
        part = {"name": part}
    return {key: part[key] for key in keys if key in part} if isinstance(part, dict) else {}


def _unequal(what: str, one: dict[str, Any], two: dict[str, Any]) -> Iterator[str]:
    for key in one:
        if key in two and one[key] != two[key]:
            yield f"{what} {key} {_short(one[key])} and {_short(two[key])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"
