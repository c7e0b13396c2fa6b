"""The verbs evaluate, embed and search from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scalefast import FeatureStore
from scalefast.cli import main
from scalefast.evaluation import evaluate

Stores = tuple[FeatureStore, FeatureStore]


def test_evaluate_prints_the_table_and_writes_the_file(
    run: Path, stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "results.json"
    words = ["evaluate", str(run), "--train", str(stores[0].path), "--test", str(stores[1].path)]
    assert main([*words, "--out", str(out), "--device", "cpu"]) == 0
    results = evaluate(run, train=stores[0], test=stores[1], device="cpu")
    assert json.loads(out.read_text()) == results.accuracies
    printed = capsys.readouterr().out
    assert results.table() in printed
    for sentence in results.verdict():
        assert sentence in printed
    assert "training: 48 videos, 768 clips, 4 classes" in printed
    assert "test: 32 videos, 512 clips, 4 classes" in printed


def test_embed_writes_the_arrays(
    run: Path, stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "vectors.npz"
    assert main(["embed", str(run), str(stores[1].path), "--out", str(out)]) == 0
    assert np.load(out)["recommended"].shape == (32, 88)
    assert "32 videos; dimensions: mean 24, cls 32, ensemble 88, recommended 88" in capsys.readouterr().out


def test_search_prints_what_it_found(run: Path, stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", str(run), str(stores[1].path), "--query", "test/004.mp4", "-k", "3"]
    assert main(words) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[0][:4] == ["rank", "similarity", "id", "class"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["rank"] for item in found] == [1, 2, 3]
    assert [[str(i["rank"]), f"{i['similarity']:.4f}", i["id"], i["label"]] for i in found] == [
        line[:4] for line in table[1:]
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "{run}", "--train", "{train}", "--test", "{train}"], "--allow-overlap"),
        (["evaluate", "{run}", "--train", "{train}", "--test", "nowhere"], "there is no such feature store"),
        (
            ["evaluate", "nowhere/x/y", "--train", "{train}", "--test", "{test}"],
            "not a folder with a saved model",
        ),
        (["embed", "{run}", "{test}", "--out", "{run}"], "this is a folder"),
        (["search", "{run}", "{test}", "--query", "nothing"], "neither a file nor the id of a video"),
    ],
)
def test_errors_are_one_line_and_status_2(
    run: Path, stores: Stores, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"run": run, "train": stores[0].path, "test": stores[1].path}
    assert main([word.format(**places) for word in words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("error: ")
    assert message in told[-1]
    assert not any("Traceback" in line for line in told)
