"""Names of the evaluation's protocols, apart from what computes them, so that `--help` need not load torch."""

from __future__ import annotations

from typing import Literal

__all__ = ["Protocol"]

Protocol = Literal[
    "knn",
    "linear",
    "linear_clips",
    "low_shot",
    "retrieval",
    "clustering",
    "nonlinear",
    "attention",
    "attentive",
    "authors",
    "regression",
]
"""
knn: k-NN on one row a video, k = 20, T = 0.07, each split centred by its own mean.
linear: linear probe on one row a video.
linear_clips: linear probe on one row a clip, the logits of a test video's clips averaged.
low_shot: linear probe on a part of the training videos, mean of 5 draws.
retrieval: whether one of the k nearest training videos has the class, k = 1, 5, 10, 20.
clustering: k-means of the test videos, NMI and ARI against the classes.
nonlinear: SCALE trained on with labels, beside SCALE from scratch, an MLP, attention pooling, an attentive probe.
attention: attention pooling trained with labels, over the clips.
attentive: an attentive probe (cross-attention with one query), over the clips.
authors: the released code's linear probe, best epoch and averaging mode on the test videos: optimistic.
regression: ridge regression of labels that are numbers, R2 in the table and the mean squared error in the details.
"""
