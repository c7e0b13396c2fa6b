"""The protocols of an evaluation: from two splits to the rows of the table.

Legend: `N` training videos, `M` test videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from scalefast._protocols import Protocol
from scalefast.errors import InputError
from scalefast.evaluation import authors, low_shot, trained
from scalefast.evaluation._outcome import Outcome, Split
from scalefast.evaluation.baselines import COLUMNS
from scalefast.evaluation.clustering import (
    adjusted_rand_index,
    contingency,
    kmeans,
    normalized_mutual_information,
)
from scalefast.evaluation.jackknife import influences
from scalefast.evaluation.knn import center_and_normalize, knn_predict
from scalefast.evaluation.linear import LinearProbe, fit_linear_probe
from scalefast.evaluation.regression import fit_ridge_probe
from scalefast.evaluation.retrieval import RANKS, retrieval_hits

__all__ = ["PROTOCOLS", "Protocol", "Rows", "check_protocols", "run_protocol"]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

Rows = dict[str, dict[str, Outcome]]
"""`{row of the table: {column: outcome}}`; most protocols have one row."""

K = 20
TEMPERATURE = 0.07


def run_protocol(protocol: Protocol, train: Split, test: Split, *, seed: int) -> Rows:
    """Run one protocol on all columns.

    Args:
        protocol: which.
        train: with labels to learn from.
        test: its labels are only compared with what was predicted.
        seed: of the validation splits, draws and starts; the same ones for all columns.
    """
    return _RUN[protocol](train, test, seed)


def _knn(train: Split, test: Split, seed: int) -> Rows:
    used = {"k": min(K, len(train.labels)), "temperature": TEMPERATURE, "centred": "by split"}
    row = {}
    for name in COLUMNS:
        predicted = knn_predict(
            train.videos[name], train.labels, test.videos[name], k=K, temperature=TEMPERATURE
        )
        row[name] = Outcome.of(predicted, test.labels, dict(used))
    return {"knn": row}


def _linear(train: Split, test: Split, seed: int) -> Rows:
    row = {}
    for name in COLUMNS:
        probe = fit_linear_probe(train.videos[name], train.labels, seed=seed)
        row[name] = Outcome.of(probe.predict(test.videos[name]), test.labels, _describe(probe))
    return {"linear": row}


def _linear_clips(train: Split, test: Split, seed: int) -> Rows:
    row = {}
    for name in COLUMNS:
        probe = fit_linear_probe(train.clips[name], train.labels, videos=train.clip_videos, seed=seed)
        logits, settings = probe.logits(test.clips[name]), _describe(probe)
        # Both ways of averaging are reported; the first is the protocol, whichever is better here.
        outcomes = []
        for mode, values in {"logits": logits, "probabilities": logits.softmax(1)}.items():
            summed = _sum_by_video(values, test.clip_videos, len(test.labels))
            outcomes.append(Outcome.of(probe.classes[summed.argmax(1)], test.labels, settings))
            settings[f"accuracy_averaging_{mode}"] = outcomes[-1].value
        row[name] = outcomes[0]
    return {"linear_clips": row}


def _low_shot(train: Split, test: Split, seed: int) -> Rows:
    rows: Rows = {}
    for title, shots in low_shot.SHOTS.items():
        kept = [
            low_shot.draw_shots(train.labels, shots, draw=draw, seed=seed) for draw in range(low_shot.DRAWS)
        ]
        rows[f"low_shot_{title}"] = {name: _shots(train, test, name, kept, seed) for name in COLUMNS}
    return rows


def _shots(train: Split, test: Split, name: str, draws: list[Tensor], seed: int) -> Outcome:
    probes = [fit_linear_probe(train.videos[name][kept], train.labels[kept], seed=seed) for kept in draws]
    right = torch.stack([(probe.predict(test.videos[name]) == test.labels).cpu() for probe in probes])
    scores, each = right.double().mean(0), right.double().mean(1)
    return Outcome(
        value=scores.mean().item(),
        scores=scores,
        settings={
            "labelled_videos": int(draws[0].sum()),
            "draws": len(draws),
            "accuracies": each.tolist(),
            "standard_deviation": each.std().item() if len(draws) > 1 else None,
            "l2_by_draw": [probe.l2 for probe in probes],
            "validation_videos": [probe.validation_videos for probe in probes],
        },
    )


def _retrieval(train: Split, test: Split, seed: int) -> Rows:
    rows: Rows = {f"retrieval_r{rank}": {} for rank in RANKS}
    for name in COLUMNS:
        hits = retrieval_hits(train.videos[name], train.labels, test.videos[name], test.labels).cpu()
        for rank, hit in zip(RANKS, hits.T, strict=True):
            settings = {"rank": min(rank, len(train.labels)), "similarity": "cosine", "gallery": "training"}
            value = hit.double().mean().item()
            rows[f"retrieval_r{rank}"][name] = Outcome(value=value, scores=hit, settings=settings)
    return rows


def _clustering(train: Split, test: Split, seed: int) -> Rows:
    clusters, count = len(torch.unique(test.labels)), len(test.labels)
    measures = {"nmi": (normalized_mutual_information, 0.0), "ari": (adjusted_rand_index, -1.0)}
    rows: Rows = {f"clustering_{measure}": {} for measure in measures}
    for name in COLUMNS:
        rowwise = center_and_normalize(test.videos[name], center=count > 1)
        found, inertia = kmeans(rowwise, clusters=clusters, seed=seed)
        for measure, (of, least) in measures.items():
            rows[f"clustering_{measure}"][name] = Outcome(
                value=of(contingency(test.labels, found)),
                influence=influences(of, test.labels, found),
                least=least,
                settings={"clusters": clusters, "inertia": inertia, "videos": count},
            )
    return rows


def _regression(train: Split, test: Split, seed: int) -> Rows:
    variance = test.targets.var(0, correction=0)
    if not bool((variance > 0).all()):
        raise InputError(
            f"{test.store.path}: all test videos have the same label; nothing is left to explain"
        )
    row = {}
    for name in COLUMNS:
        probe = fit_ridge_probe(train.videos[name], train.targets, seed=seed)
        errors = (probe.predict(test.videos[name]) - test.targets).square()
        scores = (1.0 - errors / variance).mean(1).cpu()
        settings = {
            "mean_squared_error": errors.mean().item(),
            "mean_squared_error_by_target": errors.mean(0).tolist(),
            "penalty": probe.penalty,
            "penalty_chosen_by": "mean squared error on a validation split of the training videos",
            "validation": [{"penalty": penalty, "error": error} for penalty, error in probe.scores],
        }
        row[name] = Outcome(value=scores.mean().item(), scores=scores, settings=settings)
    return {"regression": row}


def _sum_by_video(values: Tensor, videos: Tensor, count: int) -> Tensor:
    """`[R, C]` -> `[M, C]`, summed in the order of the rows."""
    order = torch.argsort(videos, stable=True)
    lengths = torch.bincount(videos, minlength=count)
    return torch.segment_reduce(values[order], "sum", lengths=lengths, axis=0)


def _describe(probe: LinearProbe) -> dict[str, Any]:
    return {
        "l2": probe.l2,
        "l2_chosen_by": "accuracy on a validation split of the training videos"
        if probe.scores
        else "default",
        "validation_videos": probe.validation_videos,
        "validation": [
            {"l2": score.l2, "accuracy": score.accuracy, "loss": score.loss} for score in probe.scores
        ],
        "gradient": probe.gradient,
    }


_RUN: dict[Protocol, Callable[[Split, Split, int], Rows]] = {
    "knn": _knn,
    "linear": _linear,
    "linear_clips": _linear_clips,
    "low_shot": _low_shot,
    "retrieval": _retrieval,
    "clustering": _clustering,
    "nonlinear": trained.nonlinear,
    "attention": trained.attention,
    "attentive": trained.attentive,
    "authors": authors.authors,
    "regression": _regression,
}


def check_protocols(protocols: Sequence[str]) -> None:
    """Raise InputError on an unknown protocol, or none."""
    odd = [name for name in protocols if name not in PROTOCOLS]
    if odd or not protocols:
        raise InputError(f"protocols must be some of {', '.join(PROTOCOLS)}, got {', '.join(odd) or 'none'}")
