"""Run the studies: each configuration trained with each seed, probed, and kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast.ablation.cache import Cache, Scores
from scalefast.ablation.studies import STUDIES, variants_of
from scalefast.ablation.table import AblationTable, Row
from scalefast.errors import InputError, TrainingError
from scalefast.evaluation import fit_linear_probe, knn_predict, represent
from scalefast.evaluation._run import open_store
from scalefast.evaluation.data import check_splits, class_labels
from scalefast.model import SCALE
from scalefast.training import PretrainConfig, load_run, pretrain

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["BASELINES", "COLUMNS", "PROTOCOLS", "ablate"]

PROTOCOLS = ("knn", "linear")
COLUMNS = ("cls", "recommended")
"""Representations of every run."""
BASELINES = ("mean", "mean_std", "max")
"""Poolings that need no training, computed once."""


def ablate(
    store: FeatureStore | str | os.PathLike[str],
    *,
    test: FeatureStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    base: PretrainConfig | None = None,
    studies: Sequence[str] = tuple(STUDIES),
    seeds: int = 1,
    device: str | torch.device | None = None,
    say: Callable[[str], None] | None = None,
) -> AblationTable:
    """Vary one thing at a time around a configuration, and tabulate k-NN and linear accuracy.

    Every run is kept under `out/runs` by a hash of its configuration and of both stores, so that a stopped or killed
    ablation goes on where it was, in the middle of a run too, and one with more studies or seeds computes only what is
    new. The table is written anew after every run.

    Args:
        store: labelled training videos; training sees no labels, the probes do.
        test: labelled videos that accuracies speak of. To choose by the result, give a validation split.
        out: folder for the runs and for ablation.{md,json,csv}.
        base: what is varied; None: the recommended recipe.
        studies: some of `STUDIES`.
        seeds: runs of each configuration, with the base's seed, the next one, ...
        device: where to train and evaluate.
        say: is told what is being done.

    Raises:
        InputError: studies, seeds or stores do not fit. DataError: a kept result is damaged.
    """
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    from scalefast.training.recipes import recommended

    base, say = base or recommended(), say or (lambda text: None)
    train, asked = open_store(store), open_store(test)
    check_splits(train, asked)
    if train.clips_per_video is None:
        raise InputError(
            f"{train.path}: videos have different numbers of clips; pretraining needs the same of each"
        )
    variants = variants_of(base, studies=studies, clips=train.clips_per_video)
    folder = Path(out)
    cache = Cache(folder=folder / "runs", train=train, test=asked)
    splits = (train, asked)
    baselines = cache.get({"baselines": BASELINES}, lambda place: _baselines(splits))
    rows = {(variant.study, variant.name): Row(variant=variant) for variant in variants}
    table = AblationTable(base=base, baselines=baselines, rows=list(rows.values()))
    total = seeds * len(variants)
    # Seed by seed, so that the first table that is complete comes as early as it can.
    for number, (seed, variant) in enumerate(((s, v) for s in range(seeds) for v in variants), start=1):
        config = variant.config.replace(seed=base.seed + seed)
        say(f"{number} of {total}: {variant.study} = {variant.name}, seed {config.seed}")
        found = cache.get(
            {"config": config.to_dict(), "columns": COLUMNS},
            partial(_train_and_probe, splits=splits, config=config, device=device),
        )
        rows[variant.study, variant.name].add(found)
        table.save(folder)
    return table


def _train_and_probe(
    place: Path, *, splits: tuple[FeatureStore, FeatureStore], config: PretrainConfig, device: Any
) -> dict[str, Any]:
    """Train, going on with what is there, and probe; a run that comes to nothing is a result too."""
    try:
        pretrain(splits[0], out=place / "run", config=config, resume=True, device=device, progress=False)
    except TrainingError as error:
        if "not finite" not in str(error) and "NaN" not in str(error):
            raise  # the disk, or another process: no property of the configuration
        return {"failed": str(error)}
    return _scores(load_run(place / "run").model(), splits, COLUMNS)


def _baselines(splits: tuple[FeatureStore, FeatureStore]) -> dict[str, Any]:
    model = SCALE(splits[0].feature_dim, hidden_dim=32, num_layers=1).eval()  # poolings do not depend on it
    return _scores(model, splits, BASELINES)


def _scores(model: SCALE, splits: tuple[FeatureStore, FeatureStore], columns: Sequence[str]) -> Scores:
    known, asked = (class_labels(split) for split in splits)
    train, test = (represent(model, split) for split in splits)
    found: Scores = {protocol: {} for protocol in PROTOCOLS}
    for name in columns:
        found["knn"][name] = _accuracy(knn_predict(train[name], known, test[name]), asked)
        found["linear"][name] = _accuracy(fit_linear_probe(train[name], known).predict(test[name]), asked)
    return found


def _accuracy(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels).double().mean().item()
