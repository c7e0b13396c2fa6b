"""Protocols whose head is trained by gradient descent: nonlinear, attention pooling, attentive probe.

Legend: `R` clips, `W` width of a clip's features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch

from scalefast.evaluation._fit import Build, fit_heads
from scalefast.evaluation._heads import AttentionPooling, AttentiveProbe, ClipMLP, ScaleClassifier
from scalefast.evaluation._logits import video_logits
from scalefast.evaluation._outcome import Outcome, Split
from scalefast.evaluation._training import ClipSets, grid
from scalefast.evaluation._training_progress import TrainingProgress
from scalefast.evaluation.baselines import COLUMNS
from scalefast.training.memory import keep_freed_memory

__all__ = [
    "NONLINEAR",
    "TrainedRows",
    "attention",
    "attentive",
    "build_of",
    "clip_sets",
    "first_like",
    "nonlinear",
]

TrainedRows = dict[str, dict[str, Outcome]]

_Head = tuple[str, str]
"""What is trained, and on the clips of which column."""


NONLINEAR: dict[str, _Head] = {
    "mlp": ("mlp", "mean"),
    "attention_pool": ("attention", "mean"),
    "attentive_probe": ("attentive", "mean"),
    "scratch": ("scratch", "mean"),
    "finetuned": ("finetuned", "mean"),
}
"""Columns of the row `nonlinear`."""


def nonlinear(train: Split, test: Split, seed: int) -> TrainedRows:
    """SCALE trained on with labels, beside the same from scratch and heads that need no SCALE."""
    return {"nonlinear": _judge("nonlinear", NONLINEAR, train, test, seed)}


def attention(train: Split, test: Split, seed: int) -> TrainedRows:
    """Attention pooling trained with labels, over the clips of every column."""
    return {"attention": _by_column("attention", train, test, seed)}


def attentive(train: Split, test: Split, seed: int) -> TrainedRows:
    """The attentive probe, over the clips of every column."""
    return {"attentive": _by_column("attentive", train, test, seed)}


def _by_column(head: str, train: Split, test: Split, seed: int) -> dict[str, Outcome]:
    columns = {name: (head, first_like(name, train, test)) for name in COLUMNS}
    return _judge(head, columns, train, test, seed)


def first_like(name: str, *splits: Split) -> str:
    """The first column with the very clips of this one: of videos of one clip, say, mean and maximum are the clip."""

    def alike(other: str) -> bool:
        return all(torch.equal(split.clips[other], split.clips[name]) for split in splits)

    return next(other for other in COLUMNS if alike(other))


def _judge(row: str, heads: Mapping[str, _Head], train: Split, test: Split, seed: int) -> dict[str, Outcome]:
    """Fit each head on the clips of its column, once, and find the class of every test video from all its clips."""
    names: dict[_Head, str] = {}
    for name, head in heads.items():
        if (*head, seed) not in train.fitted:
            names.setdefault(head, name)
    missing = list(names)
    sets = {column: clip_sets(train, column) for _, column in missing}
    progress = TrainingProgress(label=row, names=list(names.values()), say=train.say)
    outcomes = _outcomes(missing, sets, train, test, seed, progress)
    for head, outcome in zip(missing, outcomes, strict=True):
        train.fitted[*head, seed] = outcome
    found = {name: train.fitted[*head, seed] for name, head in heads.items()}
    return {name: replace(outcome, settings=dict(outcome.settings)) for name, outcome in found.items()}


def _outcomes(
    heads: list[_Head],
    sets: Mapping[str, ClipSets],
    train: Split,
    test: Split,
    seed: int,
    progress: TrainingProgress,
) -> list[Outcome]:
    if not heads:
        return []
    if train.device.type == "cpu":
        keep_freed_memory()
    fitted = fit_heads(
        [(build_of(head, sets[column], train), sets[column]) for head, column in heads],
        train.labels,
        seed=seed,
        choices=grid(len(train.labels)),
        dtype=train.products,
        progress=progress,
    )
    outcomes = []
    for (_, column), fit in zip(heads, fitted, strict=True):
        asked = clip_sets(test, column)
        by_logits, by_probabilities = (
            fit.classes[values.argmax(1)] for values in video_logits(fit.head, asked, dtype=train.products)
        )
        outcome = Outcome.of(by_logits, test.labels, fit.settings)
        # Both ways of averaging are reported; the first is the protocol, whichever is better here.
        fit.settings["accuracy_averaging_logits"] = outcome.value
        right = (by_probabilities == test.labels).double()
        fit.settings["accuracy_averaging_probabilities"] = right.mean().item()
        outcomes.append(outcome)
    return outcomes


def build_of(head: str, sets: ClipSets, train: Split) -> Build:
    """How a head is built for these clips."""
    if head in ("scratch", "finetuned"):
        model = train.random if head == "scratch" else train.model
        return partial(ScaleClassifier, sets.rows, model=model)
    return partial(
        {"mlp": ClipMLP, "attention": AttentionPooling, "attentive": AttentiveProbe}[head], sets.rows
    )


def clip_sets(split: Split, name: str) -> ClipSets:
    """The clips of a column, with their positions."""
    features, positions, lengths = split.store.sets(slice(0, len(split.store)))
    present = torch.arange(features.shape[1]) < lengths[:, None]
    return ClipSets(
        rows=split.clips[name].clone(),
        positions=positions[present].float().to(split.device),
        lengths=lengths.long().cpu(),
    )
