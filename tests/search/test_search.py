"""`search` against brute force, and with a video file as the query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from scalefast import SCALE, FeatureStore, load_backbone
from scalefast.errors import DataError, InputError, StoreError
from scalefast.evaluation import REPRESENTATIONS, represent
from scalefast.features import extract
from scalefast.search import search
from scalefast.video import VideoList, test_recipe


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("row", [0, 13])
def test_is_brute_force_cosine_without_the_query(
    model: SCALE, store: FeatureStore, representation: Any, row: int
) -> None:
    found = search(model, store, query=store.ids[row], k=7, representation=representation, device="cpu")
    rows = represent(model, store)[representation]
    cosine = F.cosine_similarity(rows[row][None].double(), rows.double(), dim=1)
    cosine[row] = -2
    expected = cosine.sort(descending=True)
    assert [item.id for item in found] == [store.ids[i] for i in expected.indices[:7]]
    assert [item.similarity for item in found] == pytest.approx(expected.values[:7].tolist(), abs=1e-5)
    assert [item.rank for item in found] == list(range(1, 8))
    assert store.labels is not None and store.classes is not None
    labels = [store.classes[int(store.labels[i])] for i in expected.indices[:7]]
    assert [item.label for item in found] == labels


def test_more_than_there_are_gives_all_others(model: SCALE, store: FeatureStore) -> None:
    found = search(model, store, query=store.ids[3], k=1000, device="cpu")
    assert {item.id for item in found} == set(store.ids) - {store.ids[3]}


def test_labels_of_other_kinds(model: SCALE, make_store: Any) -> None:
    numbers = make_store("numbers", classes=None, videos=8)
    assert {item.label for item in search(model, numbers, query=numbers.ids[0])} <= {"0", "1", "2", "3"}
    bare = make_store("bare", labels=None, classes=None, videos=8)
    assert {item.label for item in search(model, bare, query=bare.ids[0])} == {None}


def test_copies_come_in_the_order_of_the_store(model: SCALE, make_store: Any) -> None:
    store = make_store("copies", videos=6, features=torch.randn(1, 16, 24).repeat(6, 1, 1))
    assert [item.id[-7:-4] for item in search(model, store, query=store.ids[2])] == [
        "000", "001", "003", "004", "005",
    ]  # fmt: skip


def test_a_file_of_the_store_finds_itself(films: Any) -> None:
    folder, store, model = films
    found = search(model, store, query=folder / store.ids[4], k=6, device="cpu")
    assert found[0].id == store.ids[4]
    assert found[0].similarity == pytest.approx(1.0, abs=1e-4)
    assert found[1].similarity < 0.9999
    assert len(found) == 6


def test_a_new_file_is_compared_as_if_it_were_in_the_store(
    films: Any, render_film: Any, tmp_path: Path
) -> None:
    """The same answer as for a store of all films that holds the new one too."""
    folder, store, model = films
    render_film(tmp_path / "all" / "new.mp4", seed=77, frames=31)
    for name in store.ids:
        target = tmp_path / "all" / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(folder / name)
    made = store.provenance["recipe"]
    recipe = test_recipe(
        num_frames=made["num_frames"], stride=made["stride"], size=made["size"], temporal=2, spatial=1
    )
    listed = [entry for entry in VideoList.read(tmp_path / "all")]
    unlabelled = VideoList(
        entries=tuple(type(entry)(id=entry.id, path=entry.path, label=0) for entry in listed)
    )
    backbone = load_backbone("r3d-tiny", device="cpu", dtype="fp32")
    extract(unlabelled, backbone=backbone, out=tmp_path / "store", recipe=recipe, workers=1, progress=False)
    by_file = search(model, store, query=tmp_path / "all" / "new.mp4", k=6, backbone=backbone, device="cpu")
    by_id = search(model, tmp_path / "store", query="new.mp4", k=6, device="cpu")
    assert [item.id for item in by_file] == [item.id for item in by_id]
    for one, other in zip(by_file, by_id, strict=True):
        assert one.similarity == pytest.approx(other.similarity, abs=1e-3)


def test_another_backbone_is_refused(films: Any) -> None:
    folder, store, model = films
    with pytest.raises(StoreError, match=r"was made with the backbone 'r3d-tiny' .*not with 'r3d-18'"):
        search(model, store, query=folder / store.ids[0], backbone="r3d-18", device="cpu")


def test_unknown_backbone_name_asks_where_it_is(films: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store, model = films
    made = {**store.provenance["backbone"], "name": "./gone"}
    monkeypatch.setitem(store.provenance, "backbone", made)
    with pytest.raises(InputError, match=r"backbone '\./gone', which cannot be found .*--backbone"):
        search(model, store, query=folder / store.ids[0], device="cpu")


def test_a_file_that_is_no_video(films: Any, tmp_path: Path) -> None:
    _, store, model = films
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(DataError, match=r"text\.mp4: unreadable"):
        search(model, store, query=tmp_path / "text.mp4", device="cpu")


def test_a_file_needs_a_store_that_knows_its_recipe(films: Any, model: SCALE, make_store: Any) -> None:
    folder, films_store, _ = films
    with pytest.raises(StoreError, match="does not record clip recipe and backbone"):
        search(model, make_store("bare"), query=folder / films_store.ids[0], device="cpu")


def test_unknown_query_suggests_an_id(model: SCALE, store: FeatureStore) -> None:
    with pytest.raises(
        InputError, match=r"'test/01\.mp4' is neither a file nor the id .*did you mean 'test/0"
    ):
        search(model, store, query="test/01.mp4", device="cpu")
    with pytest.raises(InputError, match=r"ids look like 'test/000\.mp4'"):
        search(model, store, query="???", device="cpu")


def test_k_below_one(model: SCALE, store: FeatureStore) -> None:
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        search(model, store, query=store.ids[0], k=0)
