"""Where the numbers of a page come from: run, stores, clips, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scalefast._version import __version__
from scalefast.evaluation._run import LoadedRun
from scalefast.report.findings import Findings

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["origin"]


def origin(run: LoadedRun, findings: Findings, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values; None where something is not known.

    Args:
        run: the model.
        findings: of the two stores.
        settings: `{protocol: {representation: settings}}`.
    """
    config = (run.record or {}).get("config", {})
    keys = ("epochs", "batch_size", "views", "learning_rate", "weight_decay", "seed", "precision")
    penalties = {
        f"L2 penalty, {protocol}": ", ".join(f"{name} {row['l2']:.2g}" for name, row in chosen.items())
        for protocol, chosen in settings.items()
        if all("l2" in row for row in chosen.values())
    }
    return {
        "run": run.name,
        "training store": findings.train.path,
        "test store": findings.test.path,
        "model": _pairs(run.model.config()),
        "weights (sha256)": run.weights_hash,
        "pretraining": _pairs({key: config[key] for key in keys if key in config}),
        "backbone": _backbone(findings.test),
        "training clips": _clips(findings.train),
        "test clips": _clips(findings.test),
        "k-NN": "k 20, temperature 0.07, each split centred by its own mean",
        **penalties,
        "scalefast": __version__,
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _backbone(store: FeatureStore) -> str:
    made_with = store.provenance.get("backbone")
    if not isinstance(made_with, dict):
        return f"{made_with or 'not recorded'}, {store.feature_dim} dimensions"
    weights = str(made_with.get("weights_hash", "not recorded"))[:16]
    return f"{made_with.get('name')}, {store.feature_dim} dimensions, weights {weights}"


def _clips(store: FeatureStore) -> str:
    recipe = store.provenance.get("recipe")
    if isinstance(recipe, dict):
        return _pairs(recipe)
    low, high = int(store.lengths.min()), int(store.lengths.max())
    return f"{low} a video" if low == high else f"{low} to {high} a video"
