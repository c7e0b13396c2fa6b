"""The authors' protocol: what it does, and that it says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalefast import SCALE, FeatureStore
from scalefast.cli import main
from scalefast.cli.evaluate import Args
from scalefast.errors import InputError
from scalefast.evaluation import PROTOCOLS, evaluate, read_results
from scalefast.evaluation._training import ClipSets, Training, _batches
from scalefast.evaluation.authors import MODES, PlainLinear, _judge, authors_training

Stores = tuple[FeatureStore, FeatureStore]


def test_number_is_the_best_of_epochs_and_modes_and_says_so(
    run: Path, stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    words = ["evaluate", str(run), "--train", str(stores[0].path), "--test", str(stores[1].path)]
    assert main([*words, "--out", str(out), "--device", "cpu", "--protocol", "authors", "knn"]) == 0
    table, details = read_results(out)
    assert list(table["authors"]) == ["clip", "random_clip_cls", "clip_cls"]
    for name, value in table["authors"].items():
        settings = details["protocols"]["authors"][name]
        assert settings["optimistic"] is True and "test videos" in settings["chosen_by"]
        assert tuple(settings["accuracies"]) == MODES
        assert all(len(values) == 60 for values in settings["accuracies"].values())
        assert value == max(map(max, settings["accuracies"].values()))
        assert settings["accuracies"][settings["mode"]][settings["epoch"] - 1] == value
        assert settings["last_epoch"]["clips"] == settings["accuracies"]["clips"][-1] <= value
        assert (settings["learning_rate"], settings["weight_decay"]) == (3e-4, 1e-4)
    printed = capsys.readouterr().out
    assert "authors' (optimistic): SCALE ([clip, CLS]) is" in printed
    assert "note: The row 'authors' is optimistic" in printed
    # The line that sums up rests on honest rows alone.
    summed = next(line for line in printed.splitlines() if line.startswith("On these videos"))
    assert "k-NN" in summed and "authors" not in summed


def test_without_it_nothing_is_optimistic(run: Path, stores: Stores) -> None:
    results = evaluate(run, train=stores[0], test=stores[1], protocols=("knn",), device="cpu")
    assert not any("optimistic" in note for note in results.notes)


def test_alone_it_has_no_summary(run: Path, stores: Stores) -> None:
    results = evaluate(run, train=stores[0], test=stores[1], protocols=("authors",), device="cpu")
    assert results.summary() == "" and len(results.verdict()) == 1


def test_modes_against_loops_over_videos_and_clips() -> None:
    random = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 1, 5, 2])
    sets = ClipSets(
        rows=torch.randn(11, 6, generator=random),
        positions=torch.rand(11, 7, generator=random),
        lengths=lengths,
    )
    torch.manual_seed(0)
    model = SCALE(feature_dim=6, hidden_dim=32, num_layers=1).eval()
    head = PlainLinear(sets.rows, 3, model=model).eval()
    classes, labels = torch.tensor([2, 5, 9]), torch.tensor([5, 2, 9, 9])
    found = _judge(head, sets, classes, labels)
    start = 0
    for row, count in enumerate(lengths.tolist()):
        clips = slice(start, start + count)
        start += count
        with torch.no_grad():
            cls = model(sets.rows[None, clips], sets.positions[None, clips]).video[0]
            logits = torch.stack([head.linear(torch.cat([clip, cls])) for clip in sets.rows[clips]])
        guesses = {
            "average_logits": classes[logits.mean(0).argmax()],
            "average_probabilities": classes[logits.softmax(1).mean(0).argmax()],
        }
        for mode, guess in guesses.items():
            assert found[mode][row] == float(guess == labels[row])
        share = (classes[logits.argmax(1)] == labels[row]).double().mean()
        assert found["clips"][row] == pytest.approx(share.item())


def test_scale_is_frozen_and_in_eval_mode() -> None:
    torch.manual_seed(0)
    head = PlainLinear(torch.randn(4, 6), 2, model=SCALE(feature_dim=6, hidden_dim=32, num_layers=1)).train()
    assert head.training and head.model is not None and not head.model.training
    assert {name for name, value in head.named_parameters() if value.requires_grad} == {
        "linear.weight",
        "linear.bias",
    }


def test_settings_are_those_of_pretraining() -> None:
    paper = authors_training({}, videos=10_000)
    assert (paper.learning_rate, paper.weight_decay, paper.epochs) == (3e-4, 1e-4, 60)
    assert (paper.schedule_epochs, paper.batch_size, paper.views) == (200, 512, 8)
    own = authors_training({"learning_rate": 0.1, "weight_decay": 0.2, "epochs": 1000}, videos=40)
    assert (own.learning_rate, own.weight_decay, own.schedule_epochs, own.batch_size) == (0.1, 0.2, 1000, 40)
    assert authors_training({"epochs": 5}, videos=40).schedule_epochs == 60


@given(videos=st.integers(1, 60), batch=st.integers(1, 20), drop=st.booleans())
def test_incomplete_batches_are_left_out_where_asked(videos: int, batch: int, drop: bool) -> None:
    training = Training(learning_rate=1.0, weight_decay=0.0, epochs=1, batch_size=batch, drop_last=drop)
    parts = _batches(torch.arange(videos), training)
    kept = sum(map(len, parts))
    assert kept == (videos // batch * batch if drop and videos >= batch else videos)
    assert torch.equal(torch.cat(parts), torch.arange(kept))


def test_one_class_is_refused(run: Path, stores: Stores, tmp_path: Path) -> None:
    alone = [
        FeatureStore.create(
            tmp_path / store.path.name, features=store.features.tensor()[:6], labels=torch.zeros(6).long(),
            ids=store.ids[:6],
        )
        for store in stores
    ]  # fmt: skip
    with pytest.raises(InputError, match="at least 2 classes"):
        evaluate(run, train=alone[0], test=alone[1], protocols=("authors",), device="cpu")


def test_command_line_offers_every_protocol() -> None:
    (names, _) = get_args(get_type_hints(Args)["protocols"])
    assert get_args(names) == PROTOCOLS
