"""`compose`: gather what the page shows; `report`: write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scalefast.errors import InputError
from scalefast.evaluation import Difference, Results, evaluate, read_results, represent
from scalefast.evaluation._run import LoadedRun, default_device, load, open_store
from scalefast.evaluation.data import check_splits
from scalefast.evaluation.results import check_place
from scalefast.report.findings import Findings
from scalefast.report.page import Numbers, Page
from scalefast.report.thumbnails import VideoFinder
from scalefast.report.videos import Videos

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["compose", "report"]


def compose(
    run: str | os.PathLike[str] | SCALE,
    *,
    train: str | os.PathLike[str] | FeatureStore,
    test: str | os.PathLike[str] | FeatureStore,
    results: str | os.PathLike[str] | Results | None = None,
    videos: str | os.PathLike[str] | None = None,
    train_videos: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    title: str | None = None,
    allow_overlap: bool = False,
    device: torch.device | str | None = None,
) -> Page:
    """The page about a run; its `html()`, `drawings` and `to_dict()` say what it shows.

    Args:
        run: run folder, folder or hub id of a saved model, or a model.
        train: store of the labelled training videos.
        test: store of the labelled test videos.
        results: results.json of this run (with results-details.json beside it, if it is there), or `Results`;
            None: evaluated here, k-NN and linear.
        videos: the videos of the test store, as they were given to extraction (folder or list), to be shown.
        train_videos: those of the training store; None: the same as `videos`.
        root: folder to which relative paths of a list belong.
        title: of the page.
        allow_overlap: accept videos that are in both stores.
        device: where to compute; None: the GPU if there is one.

    Raises:
        InputError, StoreError, DataError: as `evaluate`; or the results are those of another model.
    """
    home = default_device(device)
    loaded = load(run, device=home)
    first, second = open_store(train), open_store(test)
    notes = check_splits(first, second, allow_overlap=allow_overlap)
    for store in (first, second):
        loaded.check_store(store)
    if results is None:
        results = evaluate(run, train=first, test=second, allow_overlap=allow_overlap, device=home)
    findings = Findings(
        train=first,
        test=second,
        train_vectors=represent(loaded.model, first, device=home),
        test_vectors=represent(loaded.model, second, device=home),
    )
    return Page(
        run=loaded,
        findings=findings,
        numbers=_numbers(results, run=loaded, notes=notes),
        videos=Videos(
            findings=findings,
            train=VideoFinder(videos if train_videos is None else train_videos, root=root),
            test=VideoFinder(videos, root=root),
        ),
        title=title or f"SCALE against mean pooling: {Path(loaded.name).name}",
    )


def report(
    run: str | os.PathLike[str] | SCALE,
    *,
    out: str | os.PathLike[str],
    figures: str | os.PathLike[str] | None = None,
    **about: Any,
) -> Path:
    """Write the report of a run as one HTML file, whole or not at all; returns its path.

    Args:
        run: run folder, folder or hub id of a saved model, or a model.
        out: file to write.
        figures: folder for every drawing of the page as PNG and SVG (extra `report`); None: nowhere.
        **about: the stores and all else that `compose` takes.

    Raises:
        InputError, StoreError, DataError: as `compose`; or the page or the figures cannot be written.
        MissingExtraError: figures without matplotlib.
    """
    check_place(out)  # before anything that takes long
    return compose(run, **about).save(out, figures=figures)


def _numbers(results: str | os.PathLike[str] | Results, *, run: LoadedRun, notes: list[str]) -> Numbers:
    """Results in one form, wherever they come from."""
    if isinstance(results, Results):
        return Numbers(
            accuracies=results.accuracies,
            differences=results.differences,
            intervals=results.intervals,
            settings=results.details["protocols"],
            notes=tuple(dict.fromkeys([*results.notes, *notes])),
        )
    accuracies, details = read_results(results)
    weights = details.get("weights_sha256")
    if weights is not None and run.weights_hash is not None and weights != run.weights_hash:
        raise InputError(
            f"{os.fspath(results)}: these results are of another model than {run.name} (the hash of its "
            f"weights differs); evaluate this run, or leave the results out"
        )
    return Numbers(
        accuracies=accuracies,
        differences={name: Difference(**value) for name, value in details.get("differences", {}).items()},
        intervals=details.get("intervals", {}),
        settings=details.get("protocols", {}),
        notes=tuple(dict.fromkeys([*details.get("notes", []), *notes])),
    )
