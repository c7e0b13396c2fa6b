"""The protocols of an evaluation: from representations of two splits to the class of every test video.

Legend: `N` training videos, `M` test videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation.knn import knn_predict
from scalefast.evaluation.linear import LinearProbe, fit_linear_probe

__all__ = ["PROTOCOLS", "Protocol", "SplitRows", "Verdict", "check_protocols", "classify"]

Protocol = Literal["knn", "linear", "linear_clips"]
"""
knn: k-NN on one row a video, k = 20, T = 0.07, each split centred by its own mean.
linear: linear probe on one row a video.
linear_clips: linear probe on one row a clip, the logits of a test video's clips averaged.
"""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

K = 20
TEMPERATURE = 0.07


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """One representation of one split."""

    rows: Tensor
    """`[R, D]`: one row a video, or one a clip."""
    videos: Tensor | None
    """`[R]` int64, the video of each row where a row is a clip."""
    labels: Tensor
    """int64, one a video."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a protocol says of every test video."""

    predicted: Tensor
    """`[M]` int64 class ids."""
    settings: dict[str, Any]
    """JSON-able: every number that was chosen, and how."""


def classify(protocol: Protocol, train: SplitRows, test: SplitRows, *, seed: int) -> Verdict:
    """Run one protocol on one representation.

    Args:
        protocol: which.
        train: with labels to learn from.
        test: its labels are not looked at.
        seed: of the validation split on which a linear probe's penalty is chosen.
    """
    return _RUN[protocol](train, test, seed)


def _knn(train: SplitRows, test: SplitRows, seed: int) -> Verdict:
    predicted = knn_predict(train.rows, train.labels, test.rows, k=K, temperature=TEMPERATURE)
    used = min(K, len(train.rows))
    return Verdict(
        predicted=predicted, settings={"k": used, "temperature": TEMPERATURE, "centred": "by split"}
    )


def _linear(train: SplitRows, test: SplitRows, seed: int) -> Verdict:
    probe = fit_linear_probe(train.rows, train.labels, seed=seed)
    return Verdict(predicted=probe.predict(test.rows), settings=_describe(probe))


def _linear_clips(train: SplitRows, test: SplitRows, seed: int) -> Verdict:
    assert test.videos is not None
    probe = fit_linear_probe(train.rows, train.labels, videos=train.videos, seed=seed)
    logits = probe.logits(test.rows)
    settings = _describe(probe)
    by = {"logits": logits, "probabilities": logits.softmax(1)}
    predicted = {
        name: probe.classes[_sum_by_video(values, test.videos, len(test.labels)).argmax(1)]
        for name, values in by.items()
    }
    # Both ways of averaging are reported; the first is the protocol, whichever is better here.
    for name, classes in predicted.items():
        settings[f"accuracy_averaging_{name}"] = (classes == test.labels).double().mean().item()
    return Verdict(predicted=predicted["logits"], settings=settings)


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


_RUN: dict[Protocol, Callable[[SplitRows, SplitRows, int], Verdict]] = {
    "knn": _knn,
    "linear": _linear,
    "linear_clips": _linear_clips,
}


def check_protocols(protocols: Sequence[str]) -> None:
    """Raise InputError on an unknown protocol, or none."""
    odd = [name for name in protocols if name not in PROTOCOLS]
    if odd or not protocols:
        raise InputError(f"protocols must be some of {', '.join(PROTOCOLS)}, got {', '.join(odd) or 'none'}")
