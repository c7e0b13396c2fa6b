"""`evaluate` from stores to results.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.errors import InputError, StoreError
from scalefast.evaluation import (
    COLUMNS,
    details_path,
    evaluate,
    fit_linear_probe,
    initial_model,
    knn_accuracy,
    linear_accuracy,
    represent,
    represent_clips,
)
from scalefast.evaluation.baselines import Columns

Stores = tuple[FeatureStore, FeatureStore]
CLASSIFYING = ("knn", "linear", "linear_clips")


def columns(models: tuple[SCALE, SCALE], store: FeatureStore, how: Any) -> Columns:
    """All columns of a split, from the trained and the untrained model."""
    return Columns(trained=how(models[0], store), random=how(models[1], store))


def test_results_are_those_of_each_protocol_on_each_representation(
    run: Path, stores: Stores, tmp_path: Path
) -> None:
    train, test = stores
    out = tmp_path / "results.json"
    results = evaluate(run, train=train.path, test=test.path, out=out, protocols=CLASSIFYING, device="cpu")
    written = json.loads(out.read_text())
    assert written == results.accuracies
    assert list(written) == ["knn", "linear", "linear_clips"]
    model = SCALE.from_pretrained(run)
    both = model, initial_model(model, seed=0)  # the run's seed
    first, second = (columns(both, store, represent) for store in stores)
    rows, asked = (columns(both, s, lambda *a: represent_clips(*a)[0]) for s in stores)
    videos, belongs = represent_clips(model, train)[1], represent_clips(model, test)[1]
    assert train.labels is not None and test.labels is not None
    for name in COLUMNS:
        split = (first[name], train.labels, second[name], test.labels)
        assert written["knn"][name] == pytest.approx(knn_accuracy(*split))
        assert written["linear"][name] == pytest.approx(linear_accuracy(*split))
        probe = fit_linear_probe(rows[name], train.labels, videos=videos)
        logits = torch.stack([probe.logits(asked[name][belongs == row]).mean(0) for row in range(len(test))])
        accuracy = (probe.classes[logits.argmax(1)] == test.labels).double().mean().item()
        assert written["linear_clips"][name] == pytest.approx(accuracy)
    assert len({value for row in written.values() for value in row.values()}) > 3


def test_details_say_where_the_numbers_come_from(run: Path, stores: Stores, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    evaluate(run, train=stores[0], test=stores[1], out=out, seed=5, device="cpu")
    details = json.loads(details_path(out).read_text())
    assert details["run"] == str(run)
    assert (details["seed"], details["seed_of_random_scale"]) == (5, 0)
    assert details["config"]["epochs"] == 3
    assert len(details["weights_sha256"]) == 64
    assert details["train"]["counts"]["used"] == 48
    assert details["test"]["counts"]["used"] == 32
    assert details["test"]["provenance"] == stores[1].provenance
    assert details["protocols"]["knn"]["mean"]["k"] == 20
    chosen = details["protocols"]["linear"]["cls"]
    assert chosen["l2"] in [score["l2"] for score in chosen["validation"]]
    assert set(details["differences"]) == {"knn", "linear"}


def test_test_labels_change_no_prediction(run: Path, stores: Stores, make_store: Any) -> None:
    train, test = stores
    assert test.labels is not None
    other = make_store(
        "other", features=test.features.tensor(), videos=32, labels=test.labels.flip(0), ids=test.ids
    )
    first = evaluate(run, train=train, test=test, protocols=CLASSIFYING, device="cpu")
    second = evaluate(run, train=train, test=other, protocols=CLASSIFYING, device="cpu")
    assert first.accuracies != second.accuracies
    for protocol in CLASSIFYING:
        for name in COLUMNS:
            assert torch.equal(first.predictions[protocol][name], second.predictions[protocol][name])


def test_same_call_gives_the_same_bytes(run: Path, stores: Stores, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        evaluate(run, train=stores[0], test=stores[1], out=tmp_path / name / "r.json", device="cpu")
        files.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert len(files[0]) == 2
    assert files[0] == files[1]


def test_model_in_memory_and_ragged_stores(model: SCALE, make_store: Any) -> None:
    train, test = make_store("train", ragged=True), make_store("test", ragged=True, seed=1)
    results = evaluate(model, train=train, test=test, protocols=CLASSIFYING, device="cpu")
    assert results.accuracies["knn"]["mean"] > 0.5
    assert results.details["run"] == "a model in memory"
    assert results.train.clips == int(train.lengths.sum())


def test_pretraining_on_the_test_videos_is_said(run: Path, stores: Stores) -> None:
    results = evaluate(run, train=stores[1], test=stores[0], protocols=("knn",), device="cpu")
    assert results.notes == ("The model was pretrained, without labels, on the test videos.",)
    assert evaluate(run, train=stores[0], test=stores[1], protocols=("knn",), device="cpu").notes == ()


def test_overlap_is_refused_and_can_be_allowed(run: Path, stores: Stores) -> None:
    with pytest.raises(InputError, match="32 of 32 test videos are in the training store"):
        evaluate(run, train=stores[1], test=stores[1], device="cpu")
    results = evaluate(
        run, train=stores[1], test=stores[1], protocols=("knn",), allow_overlap=True, device="cpu"
    )
    assert "32 of 32 test videos" in results.notes[0]


def test_stores_of_another_backbone_than_the_run(stores: Stores, make_store: Any, tmp_path: Path) -> None:
    from scalefast.training import PretrainConfig, pretrain

    here = make_store("here", provenance={"backbone": {"name": "b", "weights_hash": "1" * 64}})
    config = PretrainConfig(epochs=1, hidden_dim=32, num_layers=1)
    pretrain(here, out=tmp_path / "run", config=config, progress=False)
    made = {"backbone": {"name": "b", "weights_hash": "2" * 64}}
    train = make_store("train", seed=1, provenance=made)
    test = make_store("test", seed=2, provenance=made)
    with pytest.raises(StoreError, match=r"the store that .*run was trained on and .*train.*weights_hash"):
        evaluate(tmp_path / "run", train=train, test=test, device="cpu")


def test_stores_of_another_width_than_the_run(run: Path, make_store: Any) -> None:
    train, test = make_store("train", dim=7), make_store("test", dim=7, seed=1)
    with pytest.raises(
        InputError, match=r"train: its features have 7 dimensions, but .*run was trained on 24"
    ):
        evaluate(run, train=train, test=test, device="cpu")


def test_unlabelled_store(run: Path, stores: Stores, make_store: Any) -> None:
    test = make_store("test", labels=None)
    with pytest.raises(InputError, match="this store has no labels, and an accuracy needs them"):
        evaluate(run, train=stores[0], test=test, device="cpu")


def test_bad_input_leaves_old_results(run: Path, stores: Stores, make_store: Any, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    out.write_text("mine")
    with pytest.raises(InputError):
        evaluate(run, train=stores[0], test=make_store("test", labels=None), out=out, device="cpu")
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocols": ("knn", "svm")}, "protocols must be some of knn, linear, linear_clips, .*, got svm"),
        ({"protocols": ()}, "got none"),
        ({"seed": -1}, "a seed must be a whole number from 0 to 2.*, got seed = -1"),
        ({"device": "tpu9"}, "the device 'tpu9' cannot be used"),
    ],
)
def test_bad_options(run: Path, stores: Stores, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(run, train=stores[0], test=stores[1], **options)


def test_places_without_a_model(stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder with a saved model"):
        evaluate(tmp_path / "nothing", train=stores[0], test=stores[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json in this folder"):
        evaluate(tmp_path / "empty", train=stores[0], test=stores[1])


def test_unfinished_run_says_how_to_go_on(run: Path, stores: Stores, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(InputError, match=r"begun: this run is not finished.*--resume"):
        evaluate(begun, train=stores[0], test=stores[1])


def test_not_a_store(run: Path, stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such feature store"):
        evaluate(run, train=tmp_path / "nothing", test=stores[1])


def test_test_videos_have_no_part_in_the_probe(run: Path, stores: Stores, make_store: Any) -> None:
    """Other test videos, other numbers, but the very same penalties and validation scores."""
    other = make_store("other", videos=9, seed=8, noise=5.0)
    linear = ("linear", "linear_clips")
    found = [
        evaluate(run, train=stores[0], test=test, protocols=linear, device="cpu").details["protocols"]
        for test in (stores[1], other)
    ]
    for protocol in linear:
        for name in COLUMNS:
            first, second = (one[protocol][name] for one in found)
            assert first["l2"] == second["l2"]
            assert first["validation"] == second["validation"] and first["validation"]
