"""Stores whose features must not be mixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scalefast.errors import StoreError
from scalefast.features import FeatureStore, check_compatible

MakeStore = Callable[..., FeatureStore]


def provenance(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "backbone": {
            "name": "r3d",
            "weights_hash": "ab" * 32,
            "mean": [0.45],
            "size": 112,
            "identity": "1" * 64,
            "precision": "fp32",
            "source": {"kind": "folder"},
        },
        "recipe": {
            "name": "train",
            "num_frames": 16,
            "stride": 4,
            "nominal_fps": 30.0,
            "clips": 16,
            "flip": True,
        },
        "positions": "paper",
    }
    for key, value in changes.items():
        part, _, field = key.partition("__")
        if part == "backbone" and field not in ("name", "precision", "source"):
            base[part] = {**base[part], "identity": "2" * 64}
        if field:
            base[part] = {**base[part], field: value}
        else:
            base[part] = value
    return base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone__name": "other", "backbone__identity": "3"}, "backbone name 'r3d' and 'other'"),
        ({"backbone__identity": "3"}, r"backbone identity '111.*' and '3'"),
        ({"backbone__weights_hash": "cd" * 32}, r"backbone weights_hash 'abab.*' and 'cdcd"),
        ({"backbone__mean": [0.5]}, r"backbone mean \[0.45\] and \[0.5\]"),
        ({"recipe__stride": 2}, "clip stride 4 and 2"),
        ({"recipe__num_frames": 8}, "clip num_frames 16 and 8"),
        ({"positions": "seconds"}, "positions 'paper' and 'seconds'"),
    ],
)
def test_what_must_not_be_mixed(make_store: MakeStore, changes: dict[str, Any], message: str) -> None:
    """Both stores and the difference are named, whichever way round."""
    one, two = make_store("one", provenance=provenance()), make_store("two", provenance=provenance(**changes))
    with pytest.raises(StoreError, match=rf"one and .*two cannot be mixed: {message}"):
        one.check_compatible(two)
    with pytest.raises(StoreError, match=r"two and .*one cannot be mixed"):
        check_compatible(two, one)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recipe__name": "test", "recipe__clips": 15, "recipe__flip": False},
        {
            "backbone__name": "a copy of it",
            "backbone__precision": "bf16",
            "backbone__source": {"kind": "hub"},
        },
        {"backbone": None},
        {"positions": "paper", "seed": 5},
    ],
)
def test_what_may_be_mixed(make_store: MakeStore, changes: dict[str, Any]) -> None:
    """Training and test views of one backbone, and stores that do not say."""
    one, two = make_store("one", provenance=provenance()), make_store("two", provenance=provenance(**changes))
    one.check_compatible(two)
    make_store("three").check_compatible(one)


def test_another_dimension(make_store: MakeStore) -> None:
    """Own arrays state no backbone; the dimension is compared all the same."""
    with pytest.raises(StoreError, match="feature dimension 4 and 6"):
        make_store("one").check_compatible(make_store("two", dim=6))


def test_a_backbone_given_by_name(make_store: MakeStore) -> None:
    """`provenance={"backbone": "name"}` is enough to be told apart."""
    one, two = (
        make_store("one", provenance={"backbone": "a"}),
        make_store("two", provenance={"backbone": "b"}),
    )
    with pytest.raises(StoreError, match="backbone name 'a' and 'b'"):
        one.check_compatible(two)
    three = make_store("three", provenance={"backbone": {"name": "a", "weights_hash": "x", "identity": "i"}})
    three.check_compatible(one)
    with pytest.raises(StoreError, match="backbone name 'b' and 'a'"):
        two.check_compatible(three)
