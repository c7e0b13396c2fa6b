"""Protocols whose head is trained by gradient descent: nonlinear, attention pooling, attentive probe.

Legend: `R` clips, `W` width of a clip's features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from scalefast.evaluation._fit import ClipSets, fit_head, grid, video_logits
from scalefast.evaluation._heads import AttentionPooling, AttentiveProbe, ClipMLP, Head, ScaleClassifier
from scalefast.evaluation._outcome import Outcome, Split
from scalefast.evaluation.baselines import COLUMNS

__all__ = ["TrainedRows", "attention", "attentive", "nonlinear"]

TrainedRows = dict[str, dict[str, Outcome]]


def nonlinear(train: Split, test: Split, seed: int) -> TrainedRows:
    """SCALE trained on with labels, beside the same from scratch and heads that need no SCALE."""
    rows = train.clips["mean"]
    heads: dict[str, Callable[..., Head]] = {
        "mlp": ClipMLP,
        "attention_pool": AttentionPooling,
        "attentive_probe": AttentiveProbe,
        "scratch": partial(ScaleClassifier, model=train.random),
        "finetuned": partial(ScaleClassifier, model=train.model),
    }
    return {
        "nonlinear": {
            name: _judge(partial(head, rows), train, test, "mean", seed) for name, head in heads.items()
        }
    }


def attention(train: Split, test: Split, seed: int) -> TrainedRows:
    """Attention pooling trained with labels, over the clips of every column."""
    return {"attention": _by_column(AttentionPooling, train, test, seed)}


def attentive(train: Split, test: Split, seed: int) -> TrainedRows:
    """The attentive probe, over the clips of every column."""
    return {"attentive": _by_column(AttentiveProbe, train, test, seed)}


def _by_column(head: Callable[..., Head], train: Split, test: Split, seed: int) -> dict[str, Outcome]:
    return {name: _judge(partial(head, train.clips[name]), train, test, name, seed) for name in COLUMNS}


def _judge(build: Callable[[int], Head], train: Split, test: Split, name: str, seed: int) -> Outcome:
    """Fit on the clips of a column, and find the class of every test video from all its clips."""
    fitted = fit_head(build, clip_sets(train, name), train.labels, seed=seed, choices=grid(len(train.labels)))
    by_logits, by_probabilities = (
        fitted.classes[values.argmax(1)] for values in video_logits(fitted.head, clip_sets(test, name))
    )
    outcome = Outcome.of(by_logits, test.labels, fitted.settings)
    # Both ways of averaging are reported; the first is the protocol, whichever is better here.
    fitted.settings["accuracy_averaging_logits"] = outcome.value
    fitted.settings["accuracy_averaging_probabilities"] = (
        (by_probabilities == test.labels).double().mean().item()
    )
    return outcome


def clip_sets(split: Split, name: str) -> ClipSets:
    """The clips of a column, with their positions."""
    features, positions, lengths = split.store.sets(slice(0, len(split.store)))
    present = torch.arange(features.shape[1]) < lengths[:, None]
    return ClipSets(
        rows=split.clips[name].clone(),
        positions=positions[present].float().to(split.device),
        lengths=lengths.long().cpu(),
    )
