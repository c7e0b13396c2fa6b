"""Long videos as windows and as sequences of windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast import SCALE, FeatureStore
from scalefast.calibration import calibrate, scale_inputs
from scalefast.cli import main
from scalefast.demo.feature_sets import FeatureSet, write_feature_set
from scalefast.errors import InputError, StoreError
from scalefast.evaluation import represent
from scalefast.evaluation.linear import linear_accuracy
from scalefast.training import PretrainConfig, load_run, pretrain
from scalefast.windows import cut_windows, join_windows


def long_store(path: Path, lengths: list[int], *, seed: int = 0) -> FeatureStore:
    """Clips shuffled in time, 10 s each; every feature is its time and noise."""
    random = torch.Generator().manual_seed(seed)
    features, positions = [], []
    for length in lengths:
        start = 10.0 * torch.randperm(length, generator=random)
        features.append(torch.cat([start[:, None], torch.randn(length, 3, generator=random)], dim=1))
        place = torch.tensor([-1.0, 0.1, 0.2, 0.8, 0.9, 0.0, 0.0]).repeat(length, 1)
        place[:, 5], place[:, 6] = start, start + 10
        positions.append(place)
    return FeatureStore.create(
        path, features=features, positions=positions, labels=torch.arange(len(lengths))
    )


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(5, 40), min_size=1, max_size=4), clips=st.integers(1, 5))
def test_windows_are_consecutive_in_time_and_whole(tmp_path_factory, lengths, clips):
    folder = tmp_path_factory.mktemp("windows")
    store = long_store(folder / "long", lengths)
    windows = cut_windows(store, out=folder / "w", clips=clips, positions="kept")
    assert len(windows) == sum(length // clips for length in lengths)
    assert windows.features.shape[1:] == (clips, 4)
    row = 0
    for video, length in enumerate(lengths):
        for number in range(length // clips):
            times = 10.0 * torch.arange(number * clips, (number + 1) * clips)
            assert torch.equal(windows.features[row][:, 0], times)
            assert torch.equal(windows.positions[row][:, 5], times)
            assert windows.ids[row] == f"{video}#{number:04d}" and int(windows.labels[row]) == video
            row += 1
    relative = cut_windows(store, out=folder / "r", clips=clips)
    assert torch.equal(relative.features[:], windows.features[:])
    assert relative.positions[:, :, 5].min() == 0 and relative.positions[:, :, 6].max() == 1


@pytest.mark.parametrize("lengths", [[12, 12], [12, 9]], ids=["equal", "ragged"])
def test_a_window_becomes_its_vector_and_its_span(tmp_path, lengths):
    store = long_store(tmp_path / "long", lengths)
    torch.manual_seed(0)
    model = SCALE(4, hidden_dim=32, num_layers=1, center_sets=True, calibrated=True).eval()
    windows = cut_windows(store, out=tmp_path / "w", clips=4)
    scale_inputs(model, windows)
    calibrate(model, windows)
    segments = join_windows(model, store, out=tmp_path / "s", clips=4, device="cpu")
    assert segments.lengths.tolist() == [length // 4 for length in lengths]
    vectors = represent(model, windows).recommended
    first = segments.sets([0])
    torch.testing.assert_close(first.features[0, :3], vectors[:3])
    assert first.positions[0, 1].tolist() == pytest.approx([-1, 0.1, 0.2, 0.8, 0.9, 40, 80])
    assert torch.equal(segments.labels, store.labels) and segments.ids == store.ids
    other = join_windows(SCALE(4, hidden_dim=32), store, out=tmp_path / "o", clips=4, device="cpu")
    with pytest.raises(StoreError, match="cannot be mixed"):
        segments.check_compatible(other)


def test_the_order_of_chapters_is_learnt_through_windows(tmp_path):
    """96 clips of 10 s each: mean pooling is near chance (1 of 6), two levels of SCALE are far from it."""
    torch.set_num_threads(1)
    drawn = FeatureSet(structure="chapters", clips=96, feature_dim=32, appearance=0.3, noise=0.25)
    stores = write_feature_set(tmp_path, drawn, videos={"train": 180, "test": 120})
    small = PretrainConfig(
        center_sets=True, calibrated=True, mask_ratio=0.5, batch_size=90, learning_rate=3e-3, hidden_dim=32,
        projection_dim=32, head_dim=64, target_dim=64,
    )  # fmt: skip
    windows = cut_windows(stores["train"], out=tmp_path / "windows", clips=8)
    pretrain(windows, out=tmp_path / "level-1", config=small.replace(epochs=2, views=4), progress=False)
    segments = {
        split: join_windows(tmp_path / "level-1", store, out=tmp_path / f"{split}.segments", clips=8)
        for split, store in stores.items()
    }
    pretrain(
        segments["train"], out=tmp_path / "level-2", config=small.replace(epochs=150, views=6), progress=False
    )
    model = SCALE.from_pretrained(tmp_path / "level-2")
    found = {split: represent(model, store).recommended for split, store in segments.items()}
    means = {split: store.features[:].mean(1) for split, store in stores.items()}
    labels = stores["train"].labels, stores["test"].labels

    def accuracy(rows):
        return linear_accuracy(rows["train"], labels[0], rows["test"], labels[1], l2=0.1)

    assert accuracy(means) < 0.35
    assert accuracy(found) > accuracy(means) + 0.2


def test_sets_of_hundreds_of_clips_with_times_in_seconds_train_at_once(tmp_path):
    drawn = FeatureSet(structure="chapters", clips=300, feature_dim=16)
    store = write_feature_set(tmp_path, drawn, videos={"train": 8})["train"]
    small = PretrainConfig(
        center_sets=True, calibrated=True, epochs=6, views=150, hidden_dim=32, head_dim=16, target_dim=16,
        projection_dim=16, log_every=1, learning_rate=1e-3,
    )  # fmt: skip
    pretrain(store, out=tmp_path / "run", config=small, progress=False)
    losses = [line["loss"] for line in load_run(tmp_path / "run").log()]
    assert losses[-1] < losses[0] - 0.01
    model = SCALE.from_pretrained(tmp_path / "run")
    assert float(model.time_scale) == pytest.approx(1 / 3000)
    vectors = represent(model, store).recommended
    assert vectors.shape == (8, 16 + 3 * 32) and bool(vectors.isfinite().all())


def test_the_command_makes_both_stores(tmp_path, capsys):
    store = long_store(tmp_path / "long", [12, 12, 12])
    words = ["windows", str(store.path), "--clips", "4"]
    assert main([*words, "--out", str(tmp_path / "w")]) == 0
    assert "9 windows of 4 clips" in capsys.readouterr().out
    SCALE(4, hidden_dim=32).save_pretrained(tmp_path / "model")
    with_run = [*words, "--run", str(tmp_path / "model"), "--device", "cpu", "--out", str(tmp_path / "s")]
    assert main(with_run) == 0
    assert "3 videos, 9 windows, 68 numbers each" in capsys.readouterr().out
    expected = join_windows(tmp_path / "model", store, out=tmp_path / "e", clips=4, device="cpu")
    assert torch.equal(FeatureStore.open(tmp_path / "s").features[:], expected.features[:])
    assert main([*words, "--out", str(tmp_path / "w")]) == 2
    assert main(["windows", str(store.path), "--clips", "13", "--out", str(tmp_path / "x")]) == 2
    assert "fewer than a window of 13" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(tmp_path):
    store = long_store(tmp_path / "long", [12, 6])
    with pytest.raises(InputError, match="video '1' has 6 clips, fewer than a window of 7"):
        cut_windows(store, out=tmp_path / "w", clips=7)
    with pytest.raises(InputError, match="at least one clip"):
        cut_windows(store, out=tmp_path / "w", clips=0)
    with pytest.raises(
        InputError, match="features have 4 dimensions, but a model in memory was trained on 5"
    ):
        join_windows(SCALE(5, hidden_dim=32), store, out=tmp_path / "s", clips=3)
    assert not (tmp_path / "w").exists() and not (tmp_path / "s").exists()


def test_the_store_that_is_read_is_never_replaced(tmp_path):
    long = FeatureStore.create(tmp_path / "long", features=torch.randn(2, 6, 16))
    (tmp_path / "link").symlink_to(tmp_path / "long")
    for out in (tmp_path / "long", tmp_path / "link"):
        with pytest.raises(InputError, match="the store of long videos itself"):
            cut_windows(long, out=out, clips=3, overwrite=True)
        with pytest.raises(InputError, match="the store of long videos itself"):
            join_windows(SCALE(16, hidden_dim=32, num_layers=1), long, out=out, clips=3, overwrite=True)
    assert FeatureStore.open(tmp_path / "long").features.shape == (2, 6, 16)


def test_a_run_on_other_windows_is_refused(tmp_path):
    store = long_store(tmp_path / "long", [12, 12, 12, 12])
    windows = cut_windows(store, out=tmp_path / "w", clips=4)
    config = PretrainConfig(epochs=1, views=2, hidden_dim=32, head_dim=16, target_dim=16, projection_dim=16)
    pretrain(windows, out=tmp_path / "run", config=config, progress=False)
    with pytest.raises(InputError, match="was trained on windows of 4 clips, got clips = 3; give the same"):
        join_windows(tmp_path / "run", store, out=tmp_path / "s", clips=3)
    timed = FeatureStore.create(
        tmp_path / "timed", features=store.features[:], positions=store.positions[:],
        provenance={"positions": "seconds"},
    )  # fmt: skip
    with pytest.raises(StoreError, match="positions 'paper' and 'seconds'"):
        join_windows(tmp_path / "run", timed, out=tmp_path / "s", clips=4, positions="kept")
    assert not (tmp_path / "s").exists()
    segments = join_windows(tmp_path / "run", timed, out=tmp_path / "s", clips=4)
    assert (
        segments.provenance["positions"] == "seconds"
    )  # those of the sequence; stores of other forms do not mix
    shares = FeatureStore.create(
        tmp_path / "shares", features=store.features[:], positions=store.positions[:],
        provenance={"positions": "fraction"},
    )  # fmt: skip
    with pytest.raises(StoreError, match="positions 'seconds' and 'fraction'"):
        segments.check_compatible(join_windows(tmp_path / "run", shares, out=tmp_path / "f", clips=4))
