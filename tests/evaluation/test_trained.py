"""Heads trained with labels: what they compute, how they are trained, and the rows they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scalefast import SCALE, FeatureStore
from scalefast.cli import main
from scalefast.errors import InputError
from scalefast.evaluation import COLUMNS, _training, evaluate, read_results
from scalefast.evaluation._fit import fit_heads, train_head
from scalefast.evaluation._heads import (
    AttentionPooling,
    AttentiveProbe,
    ClipLinear,
    ClipMLP,
    Head,
    ScaleClassifier,
)
from scalefast.evaluation._logits import video_logits
from scalefast.evaluation._training import ClipSets, Training, draws, grid

Stores = tuple[FeatureStore, FeatureStore]
W, C = 12, 3
SHORT = Training(learning_rate=1e-2, weight_decay=1e-4, epochs=3, batch_size=8)


def scale(seed: int = 0) -> SCALE:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SCALE(feature_dim=W, hidden_dim=32, num_layers=1)


HEADS: dict[str, Callable[..., Head]] = {
    "linear": ClipLinear,
    "mlp": partial(ClipMLP, widths=(16, 8)),
    "attention": AttentionPooling,
    "attentive": AttentiveProbe,
    "scale": partial(ScaleClassifier, model=scale()),
}
all_heads = pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))


def make_sets(videos: int = 24, *, seed: int = 0, spread: float = 0.4) -> tuple[ClipSets, torch.Tensor]:
    """Ragged sets around the centre of their class."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (videos,), generator=random)
    labels = torch.arange(videos) % C
    centres = torch.randn(C, W, generator=torch.Generator().manual_seed(5))
    owner = torch.repeat_interleave(torch.arange(videos), lengths)
    rows = 100 + 7 * (centres[labels[owner]] + spread * torch.randn(len(owner), W, generator=random))
    return ClipSets(rows=rows, positions=torch.rand(len(owner), 7, generator=random), lengths=lengths), labels


@all_heads
def test_padding_and_companions_change_nothing(head: Callable[..., Head]) -> None:
    sets, _ = make_sets()
    torch.manual_seed(1)
    built = head(sets.rows, C).eval()
    together = video_logits(built, sets)[0]
    assert together.shape == (24, C)
    for video in (0, 5, 23):
        alone = video_logits(built, sets, torch.tensor([video]))[0][0]
        torch.testing.assert_close(together[video], alone, atol=2e-5, rtol=1e-4)


@all_heads
def test_a_head_learns_its_classes_and_leaves_the_generator(head: Callable[..., Head]) -> None:
    (sets, labels), (asked, truth) = make_sets(), make_sets(18, seed=1)
    state = torch.get_rng_state()
    long = Training(learning_rate=1e-2, weight_decay=1e-4, epochs=15, batch_size=8)
    trained = train_head(
        partial(head, sets.rows), sets, labels, torch.arange(24), long, num_classes=C, seed=0
    )
    assert torch.equal(state, torch.get_rng_state())
    assert not trained.training
    assert (video_logits(trained, asked)[0].argmax(1) == truth).double().mean() > 0.8


@all_heads
def test_training_repeats_to_the_bit(head: Callable[..., Head]) -> None:
    sets, labels = make_sets()
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        trained = train_head(
            partial(head, sets.rows), sets, labels, torch.arange(24), SHORT, num_classes=C, seed=7
        )
        found.append(video_logits(trained, sets)[0])
    assert torch.equal(found[0], found[1])


def test_attention_pooling_begins_as_mean_pooling() -> None:
    sets, _ = make_sets()
    head = AttentionPooling(sets.rows, C).eval()
    standard = (sets.rows - sets.rows.mean(0)) / sets.rows.std(0, unbiased=False)
    mean = torch.stack([part.mean(0) for part in standard.split(sets.lengths.tolist())])
    torch.testing.assert_close(video_logits(head, sets)[0], head.linear(mean), atol=1e-5, rtol=1e-4)


def test_attentive_probe_is_multi_head_attention_with_one_query() -> None:
    sets, _ = make_sets(4)
    torch.manual_seed(0)
    head = AttentiveProbe(sets.rows, C).eval()
    assert head.heads == 12
    oracle = nn.MultiheadAttention(W, 12, batch_first=True).eval()
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([head.q.weight, head.kv.weight]))
        oracle.in_proj_bias.copy_(torch.cat([head.q.bias, head.kv.bias]))
        oracle.out_proj.weight.copy_(head.out.weight)
        oracle.out_proj.bias.copy_(head.out.bias)
        expected = []
        for clips in sets.rows.split(sets.lengths.tolist()):
            tokens = head.norm1(head.standardised(clips[None]))
            x = head.query[None, None] + oracle(head.query[None, None], tokens, tokens)[0]
            expected.append(head.linear(x + head.mlp(head.norm2(x)))[0, 0])
    torch.testing.assert_close(video_logits(head, sets)[0], torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_fine_tuning_starts_from_the_model_and_leaves_it() -> None:
    sets, labels = make_sets()
    model = scale(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build = partial(ScaleClassifier, sets.rows, model=model)
    seen: list[Head] = []
    rest = Training(learning_rate=0.0, weight_decay=0.0, epochs=1)
    still = train_head(build, sets, labels, torch.arange(24), rest, num_classes=C, seed=0)
    moved = train_head(
        build, sets, labels, torch.arange(24), SHORT, num_classes=C, seed=0,
        after_epoch=lambda epoch, head: seen.append(head),
    )  # fmt: skip
    assert len(seen) == 3
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)
        assert torch.equal(still.model.state_dict()[name], value)
    assert not torch.equal(moved.model.state_dict()["norm.weight"], before["norm.weight"])


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    views=st.integers(1, 9),
    epoch=st.integers(0, 3),
)
def test_an_epoch_takes_every_video_once_and_no_clip_twice(
    lengths: list[int], views: int, epoch: int
) -> None:
    training = Training(learning_rate=1.0, weight_decay=0.0, epochs=4, batch_size=7, views=views)
    videos = []
    for draw in draws(torch.tensor(lengths), torch.arange(len(lengths)), training, seed=3):
        if draw.epoch != epoch:
            continue
        videos += draw.videos.tolist()
        for video, row, kept in zip(
            videos[-len(draw.videos) :], draw.clips.tolist(), draw.lengths.tolist(), strict=True
        ):
            assert kept == min(views, lengths[video])
            assert len(set(row[:kept])) == kept and max(row[:kept]) < lengths[video]
    assert sorted(videos) == list(range(len(lengths)))


def test_choice_is_the_best_on_the_validation_split() -> None:
    sets, labels = make_sets(60, spread=2.0)
    (fitted,) = fit_heads([(partial(ClipLinear, sets.rows), sets)], labels + 4, seed=0, choices=grid(60))
    tried = fitted.settings["validation"]
    assert [one["epochs"] for one in tried] == [15] * 4 + [60] * 3
    assert len({one["learning_rate"] for one in tried[:4]}) == 4
    best = max(tried[4:], key=lambda one: (one["accuracy"], -one["loss"]))
    for name in ("learning_rate", "weight_decay"):
        assert fitted.settings[name] == best[name]
    assert fitted.settings["validation_videos"] == 12
    assert fitted.classes.tolist() == [4, 5, 6]
    assert isinstance(fitted.head, ClipLinear) and fitted.head.linear.out_features == 3


def test_no_choice_where_no_video_can_be_held_out() -> None:
    sets, _ = make_sets(3)
    (fitted,) = fit_heads([(partial(ClipLinear, sets.rows), sets)], torch.arange(3), seed=0, choices=grid(3))
    assert fitted.settings["chosen_by"] == "default" and fitted.settings["validation"] == []


def test_bad_input_is_named() -> None:
    sets, labels = make_sets(6)
    build = partial(ClipLinear, sets.rows)
    with pytest.raises(InputError, match="at least 2 classes, but all training videos are of one"):
        fit_heads([(build, sets)], torch.zeros(6).long(), seed=0, choices=grid(6))
    with pytest.raises(InputError, match="give at least one"):
        fit_heads([(build, sets)], labels, seed=0, choices=())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training, "EPOCHS", 2)
    monkeypatch.setattr(_training, "LEARNING_RATES", (1e-3, 3e-3))
    monkeypatch.setattr(_training, "WEIGHT_DECAYS", (1e-4,))
    monkeypatch.setattr("scalefast.evaluation.trained.ClipMLP", partial(ClipMLP, widths=(16,)))


def test_rows_of_the_table(
    quick: None, run: Path, stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    words = ["evaluate", str(run), "--train", str(stores[0].path), "--test", str(stores[1].path)]
    names = ["nonlinear", "attention", "attentive"]
    assert main([*words, "--out", str(out), "--device", "cpu", "--protocol", *names]) == 0
    table, details = read_results(out)
    assert list(table) == names
    assert list(table["nonlinear"]) == ["mlp", "attention_pool", "attentive_probe", "scratch", "finetuned"]
    assert tuple(table["attention"]) == tuple(table["attentive"]) == COLUMNS
    printed = capsys.readouterr().out
    assert "nonlinear: SCALE (fine-tuned) is " in printed and "the best of 4 baselines" in printed
    # The same head on the same clips, in two rows.
    assert table["nonlinear"]["attention_pool"] == table["attention"]["mean"]
    assert table["nonlinear"]["attentive_probe"] == table["attentive"]["mean"]
    for row in details["protocols"].values():
        for settings in row.values():
            assert len(settings["validation"]) == 2
            assert {"accuracy_averaging_logits", "accuracy_averaging_probabilities"} < set(settings)
    from scalefast.report import report

    page = report(run, train=stores[0], test=stores[1], results=out, out=tmp_path / "r.html", device="cpu")
    assert "<td>nonlinear</td>" in page.read_text() and "fine-tuned" in page.read_text()
    (tmp_path / "bad.json").write_text(json.dumps({"nonlinear": {"finetuned": 0.5}}))
    with pytest.raises(InputError, match="'finetuned' and 'scratch'"):
        read_results(tmp_path / "bad.json")


def test_test_videos_choose_nothing(quick: None, run: Path, stores: Stores, tmp_path: Path) -> None:
    """Other labels: other numbers, the same predictions and settings."""
    other = FeatureStore.create(
        tmp_path / "other",
        features=stores[1].features.tensor(),
        labels=3 - stores[1].labels,
        ids=stores[1].ids,
    )
    found = [
        evaluate(run, train=stores[0], test=test, protocols=("nonlinear",), device="cpu")
        for test in (stores[1], other)
    ]
    for name, predicted in found[0].predictions["nonlinear"].items():
        assert torch.equal(predicted, found[1].predictions["nonlinear"][name])
        first, second = (one.details["protocols"]["nonlinear"][name] for one in found)
        assert first["validation"] == second["validation"]


def test_ragged_stores(quick: None, model: SCALE, make_store: Callable[..., FeatureStore]) -> None:
    train = make_store("train", ragged=True, noise=0.3)
    test = make_store("test", ragged=True, noise=0.3, seed=1)
    found = evaluate(model, train=train, test=test, protocols=("nonlinear",), device="cpu")
    assert set(found.accuracies) == {"nonlinear"}
