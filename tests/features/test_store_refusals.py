"""FeatureStore.create and open: what must not go in is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalefast.errors import InputError, StoreError
from scalefast.features import FeatureStore

MakeStore = Callable[..., FeatureStore]


def nan_at(row: int, value: float) -> torch.Tensor:
    features = torch.zeros(6, 2, 3)
    features[row, 1, 2] = value
    return features


X = torch.zeros(3, 2, 4)
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("two dimensions", {"features": torch.zeros(3, 4)}, r"features.shape = \(3, 4\), expected \[N, V, W\]"),
    ("no video", {"features": torch.zeros(0, 2, 4)}, "no video"),
    ("empty list", {"features": []}, "no video"),
    ("no clips", {"features": torch.zeros(3, 0, 4)}, "expected"),
    ("an empty set", {"features": [torch.zeros(2, 4), torch.zeros(0, 4)]}, r"features\[1\].shape = \(0, 4\)"),
    ("integers", {"features": np.zeros((3, 2, 4), dtype=np.int64)}, "int64.*float16, bfloat16"),
    ("complex", {"features": torch.zeros(3, 2, 4, dtype=torch.complex64)}, "complex64"),
    ("text", {"features": "features.npy"}, "expected|float"),
    ("a number", {"features": 3}, "expected an array"),
    ("widths differ", {"features": [torch.zeros(2, 4), torch.zeros(2, 5)]}, r"features\[1\] is .* width 5"),
    ("dtypes differ", {"features": [torch.zeros(2, 4), torch.zeros(2, 4).half()]}, "float16 of width 4"),
    ("nan", {"features": nan_at(4, float("nan"))}, r"row 4 \(id '4'\): NaN at clip 1, column 2"),
    ("nan with id", {"features": nan_at(5, float("nan")), "ids": list("abcdef")}, r"row 5 \(id 'f'\): NaN"),
    ("infinity", {"features": nan_at(0, float("-inf"))}, "row 0 .*infinity"),
    (
        "nan position",
        {"features": X, "positions": X.new_full((3, 2, 7), float("nan"))},
        "positions of row 0 ",
    ),
    ("position width", {"features": X, "positions": torch.zeros(3, 2, 4)}, "expected 7"),
    (
        "position count",
        {"features": X, "positions": torch.zeros(2, 2, 7)},
        "positions hold 2 videos, features hold 3",
    ),
    ("position clips", {"features": X, "positions": torch.zeros(3, 1, 7)}, "row 0: positions hold 1 clips"),
    ("duplicate ids", {"features": X, "ids": ["a", "b", "a"]}, r"ids\[2\] = 'a' is also the id of row 0"),
    ("number and text", {"features": X, "ids": [1, "1", 2]}, r"ids\[1\] = '1' is also"),
    ("ids of another type", {"features": X, "ids": ["a", None, "c"]}, r"ids\[1\] = None: expected a string"),
    ("too few ids", {"features": X, "ids": ["a"]}, "1 of them for 3 videos"),
    ("one text as ids", {"features": X, "ids": "abc"}, "expected a list"),
    ("label count", {"features": X, "labels": [0, 1]}, r"expected \[3\]"),
    ("text labels", {"features": X, "labels": ["a", "b", "c"]}, "int64, float32 or multi-hot"),
    ("missing label", {"features": X, "labels": [0, None, 1]}, "int64, float32 or multi-hot"),
    ("nan label", {"features": X, "labels": [0.0, float("nan"), 1.0]}, "labels of row 1"),
    ("three dimensions of labels", {"features": X, "labels": torch.zeros(3, 1, 1)}, "labels.shape"),
    ("odd multi-hot", {"features": X, "labels": np.array([[0, 1], [2, 0], [1, 1]])}, "row 1.*0 and 1 only"),
    (
        "label out of range",
        {"features": X, "labels": [0, 2, 1], "classes": ["a", "b"]},
        r"labels\[1\] = 2.*0 to 1",
    ),
    ("negative label", {"features": X, "labels": [0, 1, -1], "classes": ["a", "b"]}, r"labels\[2\] = -1"),
    (
        "multi-hot width",
        {"features": X, "labels": torch.zeros(3, 3).bool(), "classes": ["a", "b"]},
        "2 classes",
    ),
    ("class of another type", {"features": X, "classes": [0, 1]}, r"classes\[0\] = 0"),
    ("provenance", {"features": X, "provenance": {"x": object()}}, "provenance: cannot be written as JSON"),
    ("provenance nan", {"features": X, "provenance": {"x": float("nan")}}, "provenance"),
    ("provenance list", {"features": X, "provenance": [1]}, "provenance: expected a dict"),
]


@pytest.mark.parametrize(("arguments", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_arrays_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    """The message names the argument and the row, and nothing is left behind."""
    with pytest.raises(InputError, match=message):
        FeatureStore.create(tmp_path / "s", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_not_overwritten_unasked(make_store: MakeStore, tmp_path: Path) -> None:
    """`overwrite=True` replaces a store, and only a store; a failed replacement leaves the old one."""
    store = make_store(videos=5)
    with pytest.raises(StoreError, match="exists already"):
        make_store(videos=6)
    with pytest.raises(InputError, match="NaN"):
        FeatureStore.create(store.path, features=nan_at(0, float("nan")), overwrite=True)
    assert len(FeatureStore.open(store.path)) == 5
    assert len(make_store(videos=6, overwrite=True)) == 6
    assert [item.name for item in tmp_path.iterdir()] == ["store"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="not a feature store"):
        FeatureStore.create(other, features=X, overwrite=True)
    assert (other / "thesis.tex").exists()


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    """A folder made beforehand is used."""
    (tmp_path / "deep" / "s").mkdir(parents=True)
    assert len(FeatureStore.create(tmp_path / "deep" / "s", features=X)) == 3


@pytest.mark.parametrize("what", ["absent", "folder", "file"])
def test_opening_something_else(tmp_path: Path, what: str) -> None:
    """Each case says what is there instead."""
    path = tmp_path / "x"
    if what == "folder":
        path.mkdir()
    if what == "file":
        path.write_text("x")
    expected = {"absent": "there is no such", "folder": "not a feature store", "file": "a file"}[what]
    with pytest.raises(StoreError, match=expected):
        FeatureStore.open(path)
