"""Evaluate a run: every protocol on every representation, SCALE always beside its baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast._version import __version__
from scalefast.evaluation._run import default_device, load, open_store
from scalefast.evaluation.baselines import COLUMNS, Columns, initial_model, initial_seed
from scalefast.evaluation.bootstrap import bootstrap_interval
from scalefast.evaluation.comparison import Difference, best_baseline, our_column
from scalefast.evaluation.data import check_splits, class_labels, count_split
from scalefast.evaluation.protocols import Protocol, SplitRows, check_protocols, classify
from scalefast.evaluation.representations import represent, represent_clips
from scalefast.evaluation.results import Results, check_place

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["evaluate"]


def evaluate(
    run: str | os.PathLike[str] | SCALE,
    *,
    train: str | os.PathLike[str] | FeatureStore,
    test: str | os.PathLike[str] | FeatureStore,
    out: str | os.PathLike[str] | None = None,
    protocols: Sequence[Protocol] = ("knn", "linear"),
    seed: int = 0,
    allow_overlap: bool = False,
    device: torch.device | str | None = None,
    say: Callable[[str], None] | None = None,
) -> Results:
    """Accuracy of all representations under each protocol, on the model as training left it.

    Nothing is chosen by test accuracy: the model is that of the last epoch, and the probe's penalty is
    chosen on a validation split of the training videos.

    Args:
        run: run folder, folder or hub id of a saved model, or a model.
        train: store of the labelled training videos.
        test: store of the labelled test videos.
        out: where to write results.json; details go beside it (results-details.json). None: nowhere.
        protocols: `knn`, `linear`, `linear_clips`.
        seed: of the validation split.
        allow_overlap: accept videos that are in both stores.
        device: where to compute; None: the GPU if there is one.
        say: is told what is being done.

    Raises:
        InputError: the splits, the model and the options do not fit together; the message says how.
        StoreError: a store is damaged, or of another backbone than the other one or the run.
        DataError: a feature is NaN or infinite, or a model file is damaged.
    """
    check_protocols(tuple(protocols))
    check_protocols(protocols)
    say = say or (lambda text: None)
    home = default_device(device)
    if out is not None:
        check_place(out)
    loaded = load(run, device=home)
    first, second = open_store(train), open_store(test)
    notes = check_splits(first, second, allow_overlap=allow_overlap)
    for store in (first, second):
        loaded.check_store(store)
    if loaded.trained_on(second):
        notes.append("The model was pretrained, without labels, on the test videos.")
    truth = class_labels(second)
    drawn = initial_seed(loaded.record, default=seed)
    models = (loaded.model, initial_model(loaded.model, seed=drawn))
    predictions: dict[str, dict[str, Tensor]] = {}
    settings: dict[str, Any] = {}
    for protocol in dict.fromkeys(protocols):
        say(f"{protocol}: {len(first)} training videos, {len(second)} test videos")
        splits = [_rows(protocol, models, store, home) for store in (first, second)]
        verdicts = {name: classify(protocol, splits[0](name), splits[1](name), seed=seed) for name in COLUMNS}
        predictions[protocol] = {name: verdict.predicted.cpu() for name, verdict in verdicts.items()}
        settings[protocol] = {name: verdict.settings for name, verdict in verdicts.items()}
    right = {
        protocol: {name: predicted == truth for name, predicted in row.items()}
        for protocol, row in predictions.items()
    }
    accuracies = {
        protocol: {name: hits.double().mean().item() for name, hits in row.items()}
        for protocol, row in right.items()
    }
    results = Results(
        accuracies=accuracies,
        differences={
            protocol: _difference(right[protocol], row, seed=seed) for protocol, row in accuracies.items()
        },
        intervals={
            protocol: {name: bootstrap_interval(hits, seed=seed) for name, hits in row.items()}
            for protocol, row in right.items()
        },
        train=count_split(first),
        test=count_split(second),
        notes=tuple(notes),
        details={
            **loaded.describe(),
            "scalefast_version": __version__,
            "seed": seed,
            "seed_of_random_scale": drawn,
            "protocols": settings,
            "train": _describe(first),
            "test": _describe(second),
        },
        predictions=predictions,
    )
    if out is not None:
        results.save(out)
    return results


def _difference(scores: Mapping[str, Tensor], row: Mapping[str, float], *, seed: int) -> Difference:
    """SCALE against the best baseline of a row of the table, from the score of every test video."""
    ours, theirs = our_column(row), best_baseline(row)
    return Difference.paired(scores[ours], scores[theirs], names=(ours, theirs), seed=seed)


def _rows(
    protocol: Protocol, models: tuple[SCALE, SCALE], store: FeatureStore, device: torch.device
) -> Callable[[str], SplitRows]:
    """From the name of a column to its rows for a protocol; each model runs once for all names."""
    labels = class_labels(store).to(device)
    if protocol == "linear_clips":
        (clips, videos), (random_clips, _) = (represent_clips(m, store, device=device) for m in models)
        by_clip = Columns(trained=clips, random=random_clips)
        return lambda name: SplitRows(rows=by_clip[name], videos=videos, labels=labels)
    trained, random = (represent(m, store, device=device) for m in models)
    whole = Columns(trained=trained, random=random)
    return lambda name: SplitRows(rows=whole[name], videos=None, labels=labels)


def _describe(store: FeatureStore) -> dict[str, Any]:
    return {"store": str(store.path), "provenance": store.provenance}
