"""Evaluation of a run, always beside simpler baselines: k-NN and linear probes, and vectors to take elsewhere."""

from __future__ import annotations

from scalefast.evaluation._embed import Embeddings, embed
from scalefast.evaluation._evaluate import evaluate
from scalefast.evaluation.averaging import average, evaluate_all
from scalefast.evaluation.baselines import BASELINES, COLUMNS, initial_model
from scalefast.evaluation.bootstrap import bootstrap_interval, sign_flip_p_value
from scalefast.evaluation.clustering import adjusted_rand_index, kmeans, normalized_mutual_information
from scalefast.evaluation.comparison import Difference, best_baseline, summary, verdict
from scalefast.evaluation.knn import knn_accuracy, knn_predict
from scalefast.evaluation.linear import LinearProbe, fit_linear_probe, linear_accuracy
from scalefast.evaluation.low_shot import draw_shots
from scalefast.evaluation.protocols import PROTOCOLS, Protocol
from scalefast.evaluation.regression import RidgeProbe, fit_ridge_probe
from scalefast.evaluation.representations import (
    REPRESENTATIONS,
    Representation,
    Representations,
    represent,
    represent_as,
    represent_clips,
    represent_sets,
)
from scalefast.evaluation.results import (
    Results,
    details_path,
    read_results,
    results_table,
    write_results,
)
from scalefast.evaluation.retrieval import retrieval_hits
from scalefast.evaluation.topk import nearest_rows

__all__ = [
    "BASELINES",
    "COLUMNS",
    "PROTOCOLS",
    "REPRESENTATIONS",
    "Difference",
    "Embeddings",
    "LinearProbe",
    "Protocol",
    "Representation",
    "Representations",
    "Results",
    "RidgeProbe",
    "adjusted_rand_index",
    "average",
    "best_baseline",
    "bootstrap_interval",
    "details_path",
    "draw_shots",
    "embed",
    "evaluate",
    "evaluate_all",
    "fit_linear_probe",
    "fit_ridge_probe",
    "initial_model",
    "kmeans",
    "knn_accuracy",
    "knn_predict",
    "linear_accuracy",
    "nearest_rows",
    "normalized_mutual_information",
    "read_results",
    "represent",
    "represent_as",
    "represent_clips",
    "represent_sets",
    "results_table",
    "retrieval_hits",
    "sign_flip_p_value",
    "summary",
    "verdict",
    "write_results",
]
