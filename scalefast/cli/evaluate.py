"""`scalefast evaluate`: protocols on a run's representations, always beside simpler baselines."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scalefast._protocols import Protocol
from scalefast._text import counted

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Accuracy of a run's video representations, always beside what one has without SCALE.

    The model is that of the last epoch, and nothing is chosen by test accuracy, but in the protocol "authors".

    results.json holds {protocol: {representation: accuracy in [0, 1]}}. A file results-details.json beside it
    says where every number comes from.

    Baselines, on the same features, splits and probes: "mean" of the backbone's clip features over the clips;
    "mean_std", their mean and standard deviation; "mean_time", their mean and course over time; "max", their
    largest values; "random_cls" and "random_recommended", SCALE with the random weights that training started
    from.

    SCALE: "refined", the mean of its clip features; "cls", its summary of the video; "ensemble", mean,
    refined and CLS side by side as in the paper; "recommended", its parts each of length 1, and for a model
    trained by the recommended recipe centred and weighted too.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run folder of `scalefast pretrain`, or the folder or hub id of a saved model. Several, for example of several
    seeds, are averaged."""

    train: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="STORE [STORE ...]")]
    """Feature store of the labelled training videos; of several splits (UCF101, HMDB51) one each, in the order of the
    runs, or for one run all."""

    test: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="STORE [STORE ...]")]
    """Feature store of the labelled test videos, likewise."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("results.json")
    """Results file to write."""

    protocols: Annotated[
        tuple[Protocol, ...],
        tyro.conf.arg(aliases=["--protocol"]),
    ] = ("knn", "linear")
    """knn: 20 neighbours, temperature .07. linear: logistic regression on one vector a video; linear_clips: on
    one a clip, averaged over the views of a test video; low_shot: on 1, 5, 10, 25% and on 1, 5, 10 labelled
    videos a class, mean of 5 draws. retrieval: R@1, 5, 10, 20 from test to training videos. clustering: k-means
    of the test videos, NMI and ARI. nonlinear: SCALE trained on with labels, beside SCALE from scratch, an MLP,
    attention pooling and an attentive probe. attention, attentive: attention pooling and attentive probe over
    the clips. authors: the released code's linear probe, whose epoch and averaging are the best on the test
    videos; optimistic, to compare with published numbers only. regression: ridge regression of labels that are numbers
    (LVU's like ratio and views), R2 in the table and the mean squared error below it."""

    seed: int = 0
    """Seed of validation splits, draws of labelled videos, starts of the clustering and intervals."""

    allow_overlap: bool = False
    """Accept videos that are in both stores."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Matrix products of the heads that nonlinear, attention and attentive train; auto: bf16 where the hardware is fast
    in it. All other numbers are fp32 or fp64."""

    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE", help_behavior_hint="")] = None
    """cpu, cuda or cuda:N. Without it: the GPU if there is one."""


def run(args: Args) -> int:
    """Evaluates, prints the table and the verdict, and writes both files."""
    from scalefast.evaluation import evaluate_all

    results = evaluate_all(
        args.runs,
        trains=args.train,
        tests=args.test,
        out=args.out,
        protocols=args.protocols,
        seed=args.seed,
        allow_overlap=args.allow_overlap,
        precision=args.precision,
        device=args.device,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(results.table())
    print()
    notes = (f"note: {note}" for note in results.notes)
    for line in filter(None, (results.summary(), *results.verdict(), *notes)):
        print(line)
    if errors := results.errors():
        print(f"mean squared error: {', '.join(f'{name} {error:.4g}' for name, error in errors.items())}")
    for name, split in (("training", results.train), ("test", results.test)):
        listed = "" if split.listed is None else f" of {split.listed} listed ({split.lost} bad or missing)"
        classes = "" if split.classes is None else f", {counted(split.classes, 'class')}"
        print(f"{name}: {counted(split.used, 'video')}{listed}, {counted(split.clips, 'clip')}{classes}")
    several = max(map(len, (args.runs, args.train, args.test)))
    each = "" if several == 1 else f", and each evaluation beside it ({args.out.stem}-1 to -{several})"
    print(f"written: {args.out}{each}")
    return 0
