"""Run the studies: each configuration trained with each seed, probed, and kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast.ablation.cache import Cache, Scores
from scalefast.ablation.stacks import Batched, stacks_of
from scalefast.ablation.studies import STUDIES, variants_of
from scalefast.ablation.table import AblationTable, Row
from scalefast.errors import DivergedError, InputError
from scalefast.evaluation import fit_linear_probe, knn_predict, represent
from scalefast.evaluation._run import open_store
from scalefast.evaluation.data import check_splits, class_labels
from scalefast.model import SCALE
from scalefast.training import PretrainConfig, load_run, pretrain
from scalefast.training.batched import pretrain_together
from scalefast.training.distributed import join_world
from scalefast.training.run_folder import RunFolder

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["BASELINES", "COLUMNS", "PROTOCOLS", "ablate"]

PROTOCOLS = ("knn", "linear")
COLUMNS = ("cls", "recommended")
"""Representations of every run."""
BASELINES = ("mean", "mean_std", "mean_time", "max")
"""Poolings that need no training, computed once."""

_RUN = "run"


def ablate(
    store: FeatureStore | str | os.PathLike[str],
    *,
    test: FeatureStore | str | os.PathLike[str],
    out: str | os.PathLike[str],
    base: PretrainConfig | None = None,
    studies: Sequence[str] = tuple(STUDIES),
    seeds: int = 1,
    batched: Batched = "auto",
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
        batched: whether runs that differ in numbers alone (`training.batched.VARYING`) are trained at once: where that
            is faster, wherever it can be, or never. The results are the same but for rounding.
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
    rows = [Row(variant=variant) for variant in variants]
    table = AblationTable(base=base, baselines=baselines, rows=rows)
    # Seed by seed, so that the first table that is complete comes as early as it can.
    wanted = [
        (row.variant.config.replace(seed=base.seed + seed), row) for seed in range(seeds) for row in rows
    ]
    place = join_world(device).device
    stacks = stacks_of([config for config, _ in wanted], batched=batched, store=train, device=place)
    # What is there comes first: the table of an ablation that is stopped once more holds all that was ever done.
    results = {
        config.to_json(): cache.read(_key(config)) for config, _ in wanted if cache.holds(_key(config))
    }
    total = sum(map(len, stacks))
    done = 0
    _save(table, wanted, results, folder)
    for stack in stacks:
        for number, config in enumerate(stack, start=done + 1):
            names = [f"{row.variant.study} = {row.variant.name}" for own, row in wanted if own == config]
            kept = " (done before)" if config.to_json() in results else ""
            say(f"{number} of {total}: {', '.join(names)}, seed {config.seed}{kept}")
        missing = [config for config in stack if config.to_json() not in results]
        failed = _train_at_once(missing, cache=cache, device=place, say=say)
        for config in missing:
            probe = partial(_train_and_probe, splits=splits, config=config, device=place, failed=failed)
            results[config.to_json()] = cache.get(_key(config), probe)
            _save(table, wanted, results, folder)
        done += len(stack)
    return table


def _save(
    table: AblationTable,
    wanted: Sequence[tuple[PretrainConfig, Row]],
    results: Mapping[str, dict[str, Any]],
    folder: Path,
) -> None:
    """Fill the rows with the results so far, by configuration, in the order of the seeds, and write the files."""
    for row in table.rows:
        row.clear()
    for config, row in wanted:
        if config.to_json() in results:
            row.add(results[config.to_json()])
    table.save(folder)


def _key(config: PretrainConfig) -> dict[str, Any]:
    """What a run's result is kept by, beside the stores."""
    return {"config": config.to_dict(), "columns": COLUMNS}


def _train_at_once(
    missing: Sequence[PretrainConfig], *, cache: Cache, device: torch.device, say: Callable[[str], None]
) -> dict[Path, DivergedError]:
    """Train what is missing of a stack together, if it is more than one; returns why runs came to nothing."""
    if len(missing) < 2:
        return {}
    say(f"{len(missing)} of them at once")
    runs = {cache.place(_key(config)) / _RUN: config for config in missing}
    return pretrain_together(cache.train, runs=runs, resume=True, device=device, say=say)


def _train_and_probe(
    place: Path,
    *,
    splits: tuple[FeatureStore, FeatureStore],
    config: PretrainConfig,
    device: torch.device,
    failed: Mapping[Path, DivergedError],
) -> dict[str, Any]:
    """Train, going on with what is there, and probe; a run that comes to nothing is a result too."""
    run = place / _RUN
    if run in failed:
        return {"failed": str(failed[run])}
    try:
        if not (RunFolder(run).holds_run and load_run(run).finished):
            pretrain(splits[0], out=run, config=config, resume=True, device=device, progress=False)
    except (
        DivergedError
    ) as error:  # others are the disk's, or another process's: no property of the configuration
        return {"failed": str(error)}
    return _scores(load_run(run).model(), splits, COLUMNS)


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
