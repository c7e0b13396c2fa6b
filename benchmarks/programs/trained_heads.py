"""How long the protocols take whose heads are trained by gradient descent: steps measured, protocols by their number.

    python benchmarks/programs/trained_heads.py RUN --train TRAIN.store --test TEST.store --name NAME   # half a minute

One row a head, column and precision: milliseconds of a step of the choice, weights, and the seconds of all its steps,
by the rule of the choice and with every point trained to the end. With `--plain-malloc` freed memory goes back to the
system at every step, as it did before 2026-11-21.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from results import write_rows

from scalefast.evaluation._choice import planned
from scalefast.evaluation._fit import train_head
from scalefast.evaluation._heads import Head
from scalefast.evaluation._outcome import Split
from scalefast.evaluation._run import default_device, load, open_store
from scalefast.evaluation._stack import built
from scalefast.evaluation._training import ClipSets, grid, steps_of
from scalefast.evaluation.baselines import COLUMNS, initial_model
from scalefast.evaluation.linear import validation_split
from scalefast.evaluation.trained import NONLINEAR, build_of, clip_sets, first_like
from scalefast.training.memory import keep_freed_memory

WARM, COUNTED = 1, 2
"""Epochs before those that count, and these."""


def step_seconds(split: Split, head: str, sets: ClipSets, dtype: torch.dtype) -> tuple[float, int]:
    """Seconds of a step while choosing, and weights of the head."""
    classes, target = torch.unique(split.labels, return_inverse=True)
    kept = (~validation_split(target, seed=0)).nonzero()[:, 0]
    training = replace(grid(len(target))[0], epochs=WARM + COUNTED)
    ends: list[float] = []

    def ended(epoch: int, head: Head) -> None:
        if sets.rows.device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    how: dict[str, Any] = {"num_classes": len(classes), "seed": 0}
    build = build_of(head, sets, split)
    train_head(build, sets, target, kept, training, dtype=dtype, after_epoch=ended, **how)
    steps = steps_of(kept, training) * COUNTED / training.epochs
    weights = sum(parameter.numel() for parameter in built(build, sets, **how).parameters())
    return (ends[-1] - ends[WARM - 1]) / steps, weights


def rows(train: Split, test: Split) -> Iterator[dict[str, Any]]:
    """Every head that the three protocols train."""
    choices, videos = grid(len(train.labels)), torch.arange(len(train.labels))
    kept = (~validation_split(train.labels, seed=0)).nonzero()[:, 0]
    final = steps_of(videos, choices[0]) * len(videos) / len(kept)  # its batches are as much larger
    by_rule = sum(steps_of(kept, one) for one in planned(choices)) + final
    every = sum(steps_of(kept, one) for one in choices) + final
    columns = [name for name in COLUMNS if first_like(name, train, test) == name]
    heads = [("nonlinear", *head) for head in NONLINEAR.values()]
    heads += [(head, head, name) for head in ("attention", "attentive") for name in columns]
    for protocol, head, column in heads:
        for dtype in (torch.float32, torch.bfloat16):
            seconds, weights = step_seconds(train, head, clip_sets(train, column), dtype)
            yield {
                "protocol": protocol,
                "head": head,
                "column": column,
                "products": str(dtype).removeprefix("torch."),
                "weights": weights,
                "step_milliseconds": round(1e3 * seconds, 2),
                "seconds_by_rule": round(seconds * by_rule, 1),
                "seconds_every_point_to_the_end": round(seconds * every, 1),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--name", required=True, help="of the files with the rows")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--plain-malloc", action="store_true")
    args = parser.parse_args()
    device = default_device(None)
    if not args.plain_malloc:
        keep_freed_memory()
    loaded, stores = load(args.run, device=device), [open_store(args.train), open_store(args.test)]
    random = initial_model(loaded.model, seed=0, store=stores[0])
    splits = [
        Split(store=store, model=loaded.model, random=random, device=device, pretraining={})
        for store in stores
    ]
    found = []
    for row in rows(splits[0], splits[1]):
        found.append({**row, "memory": "given back" if args.plain_malloc else "kept"})
        print(*found[-1].values(), flush=True)
    for path in write_rows(found, name=args.name, folder=args.out):
        print(path)


if __name__ == "__main__":
    main()
