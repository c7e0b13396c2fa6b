"""Which pairs of stores are refused, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from scalefast.errors import InputError, StoreError
from scalefast.evaluation.data import check_labels, check_splits, count_split

Make = Callable[..., Any]


def test_good_splits_pass_without_remarks(make_store: Make) -> None:
    assert check_splits(make_store("train"), make_store("test", seed=1, videos=20)) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dim": 25}, StoreError, r"cannot be mixed: feature dimension 24 and 25"),
        ({"provenance": {"backbone": "b"}}, StoreError, r"cannot be mixed: backbone name 'a' and 'b'"),
        ({"labels": None}, InputError, r"test: this store has no labels, and an accuracy needs them"),
        (
            {"labels": torch.rand(40)},
            InputError,
            r"test: labels are torch\.float32 of shape \(40,\); .*one class a video",
        ),
        (
            {"labels": torch.eye(4).repeat(10, 1).bool()},
            InputError,
            r"test: labels are torch\.bool of shape \(40, 4\)",
        ),
        ({"classes": ("dive", "jump", "run", "walk")}, InputError, r"different classes.*'swim', 'walk'"),
        (
            {"classes": ("jump", "dive", "run", "swim")},
            InputError,
            r"different classes.*the same names in another order",
        ),
        (
            {"labels": torch.full((40,), 9), "classes": None},
            InputError,
            r"no training video for 1 class of the test videos \(first: '9'\)",
        ),
    ],
)
def test_misfits_are_refused(
    make_store: Make, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    train = make_store("train", provenance={"backbone": "a"})
    test = make_store("test", **{"seed": 1, "provenance": {"backbone": "a"}, **options})
    with pytest.raises(error, match=message):
        check_splits(train, test)


def test_missing_class_is_named(make_store: Make) -> None:
    train = make_store("train", labels=torch.arange(40) % 3)
    with pytest.raises(
        InputError, match=r"no training video for 1 class of the test videos \(first: 'swim'\)"
    ):
        check_splits(train, make_store("test", seed=1))


def test_classes_in_training_only_are_noted(make_store: Make) -> None:
    notes = check_splits(make_store("train"), make_store("test", seed=1, labels=torch.arange(40) % 2))
    assert notes == ["2 classes without a test video."]


def test_unnamed_classes_on_one_side_are_noted(make_store: Make) -> None:
    (note,) = check_splits(make_store("train"), make_store("test", seed=1, classes=None))
    assert "test names no classes" in note


def test_shared_ids_are_refused_unless_allowed(make_store: Make) -> None:
    """Five videos by the same name, whose features are too few to tell whether they are the same."""
    ids = [f"train/{i:03d}.mp4" if i < 5 else f"test/{i}" for i in range(40)]
    train, test = make_store("train"), make_store("test", seed=1, ids=ids)
    with pytest.raises(
        InputError, match=r"5 of 40 test videos .* \(first: 'train/000\.mp4'\).*--allow-overlap"
    ):
        check_splits(train, test)
    (note,) = check_splits(train, test, allow_overlap=True)
    assert note == "5 of 40 test videos are in the training store too: the numbers are too high."


def test_same_store_twice_is_refused(make_store: Make) -> None:
    store = make_store("videos")
    with pytest.raises(InputError, match="40 of 40 test videos are in the training store too"):
        check_splits(store, store)


def test_same_videos_cut_differently_are_refused(make_store: Make) -> None:
    """Other clips of the same videos: features differ, but every video is nearest to itself."""
    train = make_store("train", prefix="videos")
    features = train.features.tensor()
    other = features + 0.3 * torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    test = make_store("test", prefix="videos", features=other)
    with pytest.raises(InputError, match="40 of 40 test videos"):
        check_splits(train, test)


def test_namesakes_that_look_different_pass(make_store: Make) -> None:
    """Folders train and test that both hold 000.mp4, 001.mp4, ...: other videos of the same names."""
    train, test = make_store("train", prefix="v"), make_store("test", prefix="v", seed=1)
    (note,) = check_splits(train, test)
    assert note.startswith("40 ids in both stores, but")


def test_namesakes_are_refused_where_features_cannot_tell(make_store: Make) -> None:
    """Clips that differ from one another as much as from those of other videos say nothing of their video."""
    features = [torch.randn(40, 16, 24, generator=torch.Generator().manual_seed(seed)) for seed in (8, 9)]
    train = make_store("train", prefix="v", features=features[0])
    test = make_store("test", prefix="v", features=features[1])
    with pytest.raises(InputError, match="40 of 40 test videos are in the training store too"):
        check_splits(train, test)


def test_namesakes_of_other_classes_pass(make_store: Make) -> None:
    train = make_store("train", prefix="v", videos=4)
    test = make_store("test", prefix="v", videos=4, seed=1, labels=torch.tensor([3, 2, 1, 0]))
    (note,) = check_splits(train, test)
    assert note.startswith("4 ids in both stores, but")


def test_same_extraction_settings_tell_namesakes_apart(make_store: Make) -> None:
    """One video, extracted twice alike, gives the same features; here three do and one does not."""
    made = {"backbone": {"name": "b"}, "recipe": {"clips": 16}, "seed": 0}
    train = make_store("train", prefix="v", videos=4, provenance=made)
    features = train.features.tensor() * 1.0001
    features[2] = torch.randn(16, 24)
    test = make_store("test", prefix="v", videos=4, features=features, provenance=made)
    notes = check_splits(train, test, allow_overlap=True)
    assert notes[0].startswith("3 of 4 test videos are in the training store too")
    assert notes[1].startswith("1 id in both stores, but")


def test_row_numbers_are_no_names(make_store: Make) -> None:
    train, test = make_store("train", ids=None), make_store("test", seed=1, ids=None)
    assert check_splits(train, test) == []


def test_row_numbers_with_equal_features_are_refused(make_store: Make) -> None:
    train, test = make_store("train", ids=None), make_store("test", ids=None, videos=8)
    with pytest.raises(InputError, match="8 of 8 test videos are in the training store too"):
        check_splits(train, test)


def test_copies_under_other_names_are_noted(make_store: Make) -> None:
    (note,) = check_splits(make_store("train"), make_store("test", videos=8))
    assert note.startswith("8 of 8 test videos have exactly the features of a training video of another name")


def test_ragged_stores_are_compared_too(make_store: Make) -> None:
    train, test = make_store("train", ragged=True), make_store("test", ragged=True, videos=9)
    (note,) = check_splits(train, test)
    assert note.startswith("9 of 9 test videos have exactly the features")


def test_counts_of_a_store_made_from_arrays(make_store: Make) -> None:
    counts = count_split(make_store("videos", videos=10, ragged=True))
    assert (counts.listed, counts.lost, counts.short) == (None, None, None)
    assert (counts.used, counts.clips, counts.classes) == (10, 2 * (3 + 4 + 5 + 6 + 7), 4)


@pytest.mark.parametrize(
    ("labels", "protocols", "message"),
    [
        (torch.arange(40) % 4, ("knn", "regression"), r"train: this store has labels of torch\.int64"),
        (torch.rand(40), ("regression", "knn"), r"train: labels are torch\.float32"),
        (
            torch.zeros(40, dtype=torch.int64),
            ("linear", "knn"),
            r"train: .*one class; knn, linear needs at least 2",
        ),
        (
            torch.zeros(40, dtype=torch.int64),
            ("clustering",),
            r"test: .*one class; clustering needs at least 2",
        ),
    ],
)
def test_labels_that_a_protocol_has_no_use_for(
    make_store: Make, labels: torch.Tensor, protocols: tuple[str, ...], message: str
) -> None:
    train, test = (make_store(name, labels=labels, classes=None) for name in ("train", "test"))
    with pytest.raises(InputError, match=message):
        check_labels(train, test, protocols=protocols)
