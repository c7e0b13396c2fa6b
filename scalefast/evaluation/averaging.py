"""Several evaluations as one: the runs of several seeds, the splits of a data set, or both."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scalefast.errors import InputError
from scalefast.evaluation._evaluate import evaluate
from scalefast.evaluation._outcome import Outcome
from scalefast.evaluation._run import open_store
from scalefast.evaluation.results import Results, check_place

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["average", "evaluate_all"]

_Path = str | os.PathLike[str]


def evaluate_all(
    runs: Sequence[_Path],
    *,
    trains: Sequence[_Path | FeatureStore],
    tests: Sequence[_Path | FeatureStore],
    out: _Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Results:
    """Evaluate several runs or splits and average: `average([evaluate(run, train=..., test=...) ...])`.

    The i-th run is evaluated on the i-th pair of stores; where there is one of a kind, it goes with all. So three runs
    and one pair are three seeds; three runs and three pairs are the splits of UCF101 or HMDB51.

    Args:
        runs: run folders, or folders or hub ids of saved models.
        trains, tests: stores of the labelled videos.
        out: where to write the mean as results.json; each evaluation goes beside it (results-1.json, ...).
        seed: as of `evaluate`.
        say: as of `evaluate`; of several evaluations each line says which it is of.
        options: as of `evaluate`.

    Raises:
        InputError: their numbers do not fit together, or as `evaluate`. StoreError: as `evaluate`.
    """
    count = max(len(runs), len(trains), len(tests))
    given = {"runs": len(runs), "training stores": len(trains), "test stores": len(tests)}
    if any(number not in (1, count) for number in given.values()):
        words = ", ".join(f"{number} {name}" for name, number in given.items())
        raise InputError(f"give as many of each, or one that goes with all; got {words}")

    if out is not None:
        check_place(out)
    for train, test in zip(
        list(trains) * (count // len(trains)), list(tests) * (count // len(tests)), strict=True
    ):
        open_store(train).check_compatible(
            open_store(test)
        )  # the last pair too before hours go into the first

    def told(i: int) -> Callable[[str], None] | None:
        return say if say is None or count == 1 else lambda text: say(f"{i + 1} of {count}, {text}")

    each = [
        evaluate(
            run, train=train, test=test, out=_numbered(out, i + 1, count), seed=seed, say=told(i), **options
        )
        for i, (run, train, test) in enumerate(
            zip(*(list(what) * (count // len(what)) for what in (runs, trains, tests)), strict=True)
        )
    ]
    results = average(each, seed=seed)
    if out is not None:
        results.save(out)
    return results


def average(evaluations: Sequence[Results], *, seed: int = 0) -> Results:
    """The mean of evaluations under the same protocols, with each value in the details.

    Intervals and tests speak of the draw of the test videos: on one test set a video's score is the mean over the
    evaluations; different test sets are drawn each for itself and count the same. How much the seeds or splits differ
    is another thing: their values and standard deviation stand in the details.

    Args:
        evaluations: one or more; one is returned as it is.
        seed: of the intervals.

    Raises:
        InputError: none, or their protocols differ.
    """
    if not evaluations:
        raise InputError("there is nothing to average: give at least one evaluation")
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    if any(other.outcomes.keys() != first.outcomes.keys() for other in evaluations):
        raise InputError("evaluations under different protocols have no mean")
    stores = [str(one.details["test"]["store"]) for one in evaluations]
    outcomes = {
        protocol: {
            column: _mean([one.outcomes[protocol][column] for one in evaluations], stores) for column in row
        }
        for protocol, row in first.outcomes.items()
    }
    notes = [f"Mean of {len(evaluations)} evaluations on {_counted(len(set(stores)), 'test set')}."]
    notes += dict.fromkeys(note for one in evaluations for note in one.notes)
    return Results.of(
        outcomes,
        seed=seed,
        train=first.train,
        test=first.test,
        notes=notes,
        details={
            "run": [one.details["run"] for one in evaluations],
            "scalefast_version": first.details["scalefast_version"],
            "train": {"store": [one.details["train"]["store"] for one in evaluations]},
            "test": {"store": stores},
        },
    )


def _mean(outcomes: Sequence[Outcome], stores: Sequence[str]) -> Outcome:
    """Their mean; outcomes on one test store are averaged video by video, those on several are strata."""
    values = [outcome.value for outcome in outcomes]
    groups = [
        [outcome for outcome, store in zip(outcomes, stores, strict=True) if store == one]
        for one in dict.fromkeys(stores)
    ]
    settings: dict[str, Any] = {"each": values, "standard_deviation": float(np.std(values, ddof=1))}
    errors = [one.settings["mean_squared_error"] for one in outcomes if "mean_squared_error" in one.settings]
    if errors:
        settings["mean_squared_error"] = float(np.mean(errors))
    value = float(np.mean([np.mean([one.value for one in group]) for group in groups]))
    scores, influence = (
        [torch.stack(parts).mean(0) for parts in found if parts]
        for found in zip(*map(_by_video, groups), strict=True)
    )
    sizes = tuple(map(len, scores or influence))
    strata = sizes if len(sizes) > 1 else None
    if scores:
        return Outcome(value=value, scores=torch.cat(scores), strata=strata, settings=settings)
    least = outcomes[0].least
    return Outcome(value=value, influence=torch.cat(influence), least=least, strata=strata, settings=settings)


def _by_video(group: Sequence[Outcome]) -> tuple[list[Tensor], list[Tensor]]:
    """Scores and influences `[M]` of outcomes on one test set, as far as they have them."""
    return (
        [one.scores.double() for one in group if one.scores is not None],
        [one.influence for one in group if one.influence is not None],
    )


def _numbered(out: _Path | None, number: int, count: int) -> Path | None:
    if out is None or count == 1:
        return None
    path = Path(out)
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _counted(count: int, what: str) -> str:
    return f"one {what}" if count == 1 else f"{count} {what}s"
