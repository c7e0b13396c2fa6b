"""Evaluate a run: every protocol on every representation, SCALE always beside its baselines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from scalefast._precision import resolve_precision
from scalefast._version import __version__
from scalefast.errors import InputError
from scalefast.evaluation._outcome import Split
from scalefast.evaluation._run import default_device, load, open_store
from scalefast.evaluation.authors import NOTE as AUTHORS_NOTE
from scalefast.evaluation.baselines import initial_model, initial_seed
from scalefast.evaluation.data import check_labels, check_splits, count_split
from scalefast.evaluation.protocols import Protocol, Rows, check_protocols, run_protocol
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
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: torch.device | str | None = None,
    say: Callable[[str], None] | None = None,
) -> Results:
    """Accuracy of all representations under each protocol, on the model as training left it.

    Nothing is chosen by test accuracy (but in the protocol `authors`, which says so): the model is that of the
    last epoch, and the probe's penalty is chosen on a validation split of the training videos.

    Args:
        run: run folder, folder or hub id of a saved model, or a model.
        train: store of the labelled training videos.
        test: store of the labelled test videos.
        out: where to write results.json; details go beside it (results-details.json). None: nowhere.
        protocols: some of `PROTOCOLS`; `low_shot`, `retrieval` and `clustering` make several rows each.
        seed: of validation splits, draws, starts and intervals.
        allow_overlap: accept videos that are in both stores.
        precision: of the matrix products of heads that are trained by gradient descent (`nonlinear`, `attention`,
            `attentive`); "auto": bf16 where the hardware is fast in it. All else is fp32 or fp64 in any case.
        device: where to compute; None: the GPU if there is one.
        say: is told what is being done, and every ten seconds how far the trainings of heads are.

    Raises:
        InputError: the splits, the model and the options do not fit together; the message says how.
        StoreError: a store is damaged, or of another backbone than the other one or the run.
        DataError: a feature is NaN or infinite, or a model file is damaged.
    """
    check_protocols(protocols)
    if not 0 <= seed < 2**63:
        raise InputError(f"a seed must be a whole number from 0 to 2**63 - 1, got {seed = }")
    say = say or (lambda text: None)
    home = default_device(device)
    products = resolve_precision(None if precision == "auto" else precision, device=home)
    if out is not None:
        check_place(out)
    loaded = load(run, device=home)
    first, second = open_store(train), open_store(test)
    notes = check_splits(first, second, allow_overlap=allow_overlap)
    check_labels(first, second, protocols=protocols)
    for store in (first, second):
        loaded.check_store(store)
    if loaded.trained_on(second):
        notes.append("The model was pretrained, without labels, on the test videos.")
    drawn = initial_seed(loaded.record, default=seed)
    random = initial_model(loaded.model, seed=drawn, store=first)
    pretraining = (loaded.record or {}).get("config") or {}
    splits = [
        Split(
            store=store,
            model=loaded.model,
            random=random,
            device=home,
            pretraining=pretraining,
            products=products,
            say=say,
        )
        for store in (first, second)
    ]
    if "authors" in protocols:
        notes.append(AUTHORS_NOTE)
    table: Rows = {}
    for protocol in dict.fromkeys(protocols):
        say(f"{protocol}: {len(first)} training videos, {len(second)} test videos")
        table |= run_protocol(protocol, *splits, seed=seed)
    results = Results.of(
        table,
        seed=seed,
        train=count_split(first),
        test=count_split(second),
        notes=notes,
        details={
            **loaded.describe(),
            "scalefast_version": __version__,
            "seed_of_random_scale": drawn,
            "train": _describe(first),
            "test": _describe(second),
        },
    )
    if out is not None:
        results.save(out)
    return results


def _describe(store: FeatureStore) -> dict[str, Any]:
    return {"store": str(store.path), "provenance": store.provenance}
