"""`embed`: one row a video, as the video alone gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.errors import InputError
from scalefast.evaluation import embed


def test_file_holds_the_promised_arrays(
    run: Path, stores: tuple[FeatureStore, FeatureStore], tmp_path: Path
) -> None:
    store = stores[1]
    vectors = embed(run, store.path, device="cpu")
    vectors.save(tmp_path / "sub" / "vectors.npz")
    with np.load(tmp_path / "sub" / "vectors.npz", allow_pickle=False) as file:
        assert set(file) == {"ids", "labels", "mean", "cls", "ensemble", "recommended"}
        assert file["ids"].tolist() == list(store.ids)
        assert file["labels"].dtype == np.int64
        assert file["labels"].tolist() == store.labels.tolist()
        shapes = {name: file[name].shape for name in ("mean", "cls", "ensemble", "recommended")}
        assert shapes == {"mean": (32, 24), "cls": (32, 32), "ensemble": (32, 88), "recommended": (32, 88)}
        assert all(file[name].dtype == np.float32 for name in shapes)
        np.testing.assert_allclose(file["mean"], store.features.float().mean(1).numpy(), atol=1e-5)


@pytest.mark.parametrize("ragged", [False, True])
def test_row_of_a_video_does_not_depend_on_the_others(model: SCALE, make_store: Any, ragged: bool) -> None:
    whole = make_store("whole", videos=9, ragged=ragged)
    vectors = embed(model, whole, device="cpu")
    for row in range(9):
        features, positions, _ = whole.sets([row])
        single = make_store(
            f"single{row}",
            videos=1,
            features=[features[0, : whole.lengths[row]]],
            positions=[positions[0, : whole.lengths[row]]],
            labels=None,
            ids=None,
        )
        alone = embed(model, single, device="cpu")
        for name in ("mean", "cls", "ensemble", "recommended"):
            np.testing.assert_allclose(getattr(vectors, name)[row], getattr(alone, name)[0], atol=2e-5)


def test_bf16_is_a_hundredth_off_and_leaves_the_means_alone(model: SCALE, make_store: Any) -> None:
    store = make_store("videos", videos=9)
    exact, mixed = (embed(model, store, device="cpu", dtype=dtype) for dtype in ("fp32", "bf16"))
    assert not np.array_equal(mixed.cls, exact.cls)
    np.testing.assert_array_equal(mixed.mean, exact.mean)
    for name in ("cls", "ensemble", "recommended"):
        assert getattr(mixed, name).dtype == np.float32
        assert (
            np.abs(getattr(mixed, name) - getattr(exact, name)).max()
            < 0.02 * np.abs(getattr(exact, name)).max()
        )
    with pytest.raises(InputError, match="dtype"):
        embed(model, store, device="cpu", dtype="fp8")  # type: ignore[arg-type]


def test_recommended_has_three_parts_of_length_one(model: SCALE, make_store: Any) -> None:
    vectors = embed(model, make_store("videos", videos=6), device="cpu")
    parts = np.split(vectors.recommended, [24, 56], axis=1)
    for part, whole in zip(parts, np.split(vectors.ensemble, [24, 56], axis=1), strict=True):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(part * np.linalg.norm(whole, axis=1, keepdims=True), whole, atol=1e-4)


def test_labels_of_every_kind(model: SCALE, make_store: Any) -> None:
    assert embed(model, make_store("none", labels=None), device="cpu").labels.tolist() == [-1] * 40
    scores = torch.rand(40)
    assert np.array_equal(
        embed(model, make_store("scores", labels=scores), device="cpu").labels, scores.numpy()
    )
    hot = torch.eye(4).repeat(10, 1).bool()
    assert np.array_equal(embed(model, make_store("hot", labels=hot), device="cpu").labels, hot.numpy())


def test_folder_in_the_place_of_the_file(model: SCALE, make_store: Any, tmp_path: Path) -> None:
    vectors = embed(model, make_store("videos", videos=4), device="cpu")
    with pytest.raises(InputError, match="this is a folder"):
        vectors.save(tmp_path)
