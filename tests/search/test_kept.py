"""An index on disk: used again, never for something else, never half or damaged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.errors import MissingExtraError, StoreError
from scalefast.search import Searcher, search, searcher


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of faiss from 5 videos on."""
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    monkeypatch.setattr("scalefast.search.index.EXACT_LIMIT", 4)


def answer(model: SCALE, store: FeatureStore, folder: Path | None, **options: Any) -> list[tuple[str, float]]:
    found = search(model, store, query=store.ids[3], index=folder, device="cpu", **options)
    return [(item.id, item.similarity) for item in found]


def test_second_search_reads_the_first_ones_index(
    model: SCALE, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(model, store, tmp_path / "index")
    assert first == answer(model, store, None)
    monkeypatch.setattr(searcher, "represent_as", lambda *args, **options: pytest.fail("made again"))
    assert answer(model, store, tmp_path / "index") == first


def test_coarse_index_is_kept_with_its_measured_recall(
    model: SCALE, store: FeatureStore, tmp_path: Path, small_limit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    made = Searcher(model, store, index=tmp_path / "index", device="cpu", say=said.append)
    assert made.index.kind == "faiss"
    record = json.loads((tmp_path / "index" / "index.json").read_text())
    assert record["kind"] == "faiss" and record["recall_at_10"] >= 0.98
    assert any("recall@10" in text for text in said)
    monkeypatch.setattr(searcher, "represent_as", lambda *args, **options: pytest.fail("made again"))
    again = Searcher(model, store, index=tmp_path / "index", device="cpu")
    query = again.query(store.ids[7])
    assert again.index.kind == "faiss"
    assert again.find(query, k=31) == made.find(query, k=31)


@pytest.mark.parametrize("what", ["representation", "weights", "store"])
def test_index_of_something_else_is_refused(
    model: SCALE, store: FeatureStore, make_store: Any, tmp_path: Path, what: str
) -> None:
    answer(model, store, tmp_path / "index")
    options: dict[str, Any] = {}
    if what == "representation":
        options["representation"] = "mean"
    elif what == "weights":
        with torch.no_grad():
            model.cls_token.add_(1e-3)
    else:
        store = make_store("other", videos=33)
    with pytest.raises(StoreError, match=f"index: this index was made with another {what};"):
        answer(model, store, tmp_path / "index", **options)


def test_folder_of_other_files_is_left_alone(model: SCALE, store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(StoreError, match="thesis: this folder holds other files"):
        answer(model, store, tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_unfinished_index_is_made_again(model: SCALE, store: FeatureStore, tmp_path: Path) -> None:
    """A kill leaves the vectors without the record that is written last."""
    first = answer(model, store, tmp_path / "index")
    (tmp_path / "index" / "index.json").unlink()
    shard = next((tmp_path / "index" / "vectors.store").glob("shard-*.bin"))
    shard.write_bytes(shard.read_bytes()[:100])
    assert answer(model, store, tmp_path / "index") == first


@pytest.mark.parametrize("name", ["vectors.store", "cells.faiss", "index.json"])
def test_damage_is_named(
    model: SCALE, store: FeatureStore, tmp_path: Path, small_limit: None, name: str
) -> None:
    answer(model, store, tmp_path / "index")
    target = tmp_path / "index" / name
    if target.is_dir():
        target = next(target.glob("shard-*.bin"))
    content = bytearray(target.read_bytes())
    content[-200 if name != "index.json" else 0] ^= 4
    target.write_bytes(content)
    with pytest.raises(StoreError, match=f"{target.name}: "):
        answer(model, store, tmp_path / "index")


def test_absent_faiss_is_told_before_anything_is_computed(
    model: SCALE, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalefast.search.index.EXACT_LIMIT", 4)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(searcher, "represent_as", lambda *args, **options: pytest.fail("made in vain"))
    with pytest.raises(MissingExtraError, match=r"index of 32 videos; .*scalefast\[faiss\]"):
        answer(model, store, tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("moment", [1, 2])
def test_killed_while_it_is_written(model: SCALE, store: FeatureStore, tmp_path: Path, moment: int) -> None:
    """SIGKILL before the coarse index is written, and before the record: the next search makes it anew."""
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    model.save_pretrained(tmp_path / "model")
    program = f"""
import os, signal
import scalefast.search.index, scalefast.search.kept as kept
from scalefast.search import search
scalefast.search.index.EXACT_LIMIT = 4
left = [{moment}]
write = kept.write_atomically
def write_or_die(path, content):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
kept.write_atomically = write_or_die
search({str(tmp_path / "model")!r}, {str(store.path)!r}, query={store.ids[3]!r}, index={str(tmp_path / "index")!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "index" / "vectors.store").is_dir() and not (
        tmp_path / "index" / "index.json"
    ).exists()
    assert answer(model, store, tmp_path / "index") == answer(model, store, None)
    assert (tmp_path / "index" / "index.json").is_file()


def test_two_that_ask_at_once_make_it_once(
    model: SCALE, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds no index, waits, and then takes the first one's."""
    made = []
    real = searcher.represent_as

    def slow(*args: Any, **options: Any) -> Any:
        made.append(1)
        time.sleep(0.3)
        return real(*args, **options)

    monkeypatch.setattr(searcher, "represent_as", slow)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(answer(model, store, tmp_path / "index")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(found) == 3 and found[0] == found[1] == found[2]
