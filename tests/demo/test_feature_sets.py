"""Drawn feature sets: the same numbers for the same seed, and a class that is told by what the structure says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast.demo.feature_sets import STRUCTURES, FeatureSet, write_feature_set
from scalefast.errors import InputError, StoreError
from scalefast.evaluation import linear_accuracy


def drawn(tmp_path, structure, *, train=240, test=120, **options):
    feature_set = FeatureSet(structure=structure, **options)
    stores = write_feature_set(tmp_path / structure, feature_set, videos={"train": train, "test": test})
    return stores["train"], stores["test"]


@settings(max_examples=10, deadline=None)
@given(structure=st.sampled_from(STRUCTURES), seed=st.integers(0, 2**40))
def test_a_video_is_a_function_of_seed_split_and_number(tmp_path_factory, structure, seed):
    folder, feature_set = tmp_path_factory.mktemp("sets"), FeatureSet(structure=structure, seed=seed)
    few = write_feature_set(folder / "few", feature_set, videos={"train": 3, "test": 3})
    many = write_feature_set(folder / "many", feature_set, videos={"train": 5})
    assert torch.equal(few["train"].features[:], many["train"].features[:3])
    assert torch.equal(few["train"].positions[:], many["train"].positions[:3])
    assert not torch.equal(few["train"].features[:], few["test"].features[:])
    other = write_feature_set(
        folder / "other", FeatureSet(structure=structure, seed=seed + 1), videos={"train": 3}
    )
    assert not torch.equal(few["train"].features[:], other["train"].features[:])


def test_averages_do_not_tell_the_order_of_events(tmp_path):
    train, test = drawn(tmp_path, "order")
    means = [store.features[:].mean(1) for store in (train, test)]
    pairs = [torch.tensor([_pair(store.classes[label]) for label in store.labels]) for store in (train, test)]
    assert (
        linear_accuracy(means[0], train.labels, means[1], test.labels, l2=0.03) < 0.55
    )  # at most one of two orders
    assert linear_accuracy(means[0], pairs[0], means[1], pairs[1], l2=0.03) > 0.6
    first, last = ([x[torch.arange(len(x)), pick(p[..., 5], 1)] for x, p in _sets(train, test)]
                   for pick in (torch.argmin, torch.argmax))  # fmt: skip
    ends = [torch.cat(both, dim=1) for both in zip(first, last, strict=True)]
    assert linear_accuracy(ends[0], train.labels, ends[1], test.labels, l2=0.03) > 0.6


def test_the_mean_tells_appearance_and_not_the_spread(tmp_path):
    for structure, by_mean, by_spread in (("appearance", 0.6, None), ("spread", None, 0.5)):
        train, test = drawn(tmp_path, structure)
        means, spreads = ([of(x) for x, _ in _sets(train, test)] for of in (_mean, _std))
        mean = linear_accuracy(means[0], train.labels, means[1], test.labels, l2=0.03)
        spread = linear_accuracy(spreads[0], train.labels, spreads[1], test.labels, l2=0.03)
        assert mean > by_mean if by_mean else mean < 0.25
        assert spread > by_spread if by_spread else spread < 0.25


def test_a_rare_event_is_in_few_clips(tmp_path):
    """Without noise and appearance each clip is its event: the class's own in 1 to 6 of 16 clips, others anywhere."""
    train, _ = drawn(tmp_path, "rare", noise=0.0, appearance=0.0)
    clips, labels = train.features[:], train.labels
    same = (clips[:, :, None] - clips[:, None]).norm(dim=-1) < 1e-4
    assert int(same.sum(2).max()) < 16
    events = {}
    for video, label in zip(clips, labels.tolist(), strict=True):
        events.setdefault(label, []).append({tuple(clip) for clip in video.mul(1000).round().int().tolist()})
    own = {label: set.intersection(*seen) for label, seen in events.items()}
    assert all(len(event) == 1 for event in own.values())
    assert len(set.union(*own.values())) == 10
    counts = [
        sum(tuple(clip) in own[label] for clip in video.mul(1000).round().int().tolist())
        for video, label in zip(clips, labels.tolist(), strict=True)
    ]
    assert min(counts) == 1 and max(counts) <= 7 and sum(counts) / len(counts) < 2.5


def test_chapters_are_long_and_timed_in_seconds(tmp_path):
    train, _ = drawn(tmp_path, "chapters", train=6, test=6, clips=200)
    assert train.features.shape == (6, 200, 64)
    assert train.positions[:, -1, 6].tolist() == [2000.0] * 6
    assert train.classes is not None and len(train.classes) == 6


@pytest.mark.parametrize("options", [{"structure": "chaos"}, {"structure": "order", "feature_dim": 8}])
def test_bad_options_are_refused(options):
    with pytest.raises(InputError):
        FeatureSet(**options)


def test_bad_splits_and_existing_stores_are_refused(tmp_path):
    feature_set = FeatureSet(structure="order")
    with pytest.raises(InputError, match="got tran=3, test=0"):
        write_feature_set(tmp_path, feature_set, videos={"tran": 3, "test": 0})
    write_feature_set(tmp_path, feature_set, videos={"test": 2})
    with pytest.raises(StoreError):
        write_feature_set(tmp_path, feature_set, videos={"test": 2})


def _pair(name: str) -> int:
    return sum(2 ** "abcd".index(event) for event in name.split("_then_"))


def _sets(*stores):
    return [(store.features[:], store.positions[:]) for store in stores]


def _mean(x):
    return x.mean(1)


def _std(x):
    return x.std(1)
