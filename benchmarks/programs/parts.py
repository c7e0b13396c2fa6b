"""Whether other parts than its own would make the recommended representation better.

    python benchmarks/programs/recommended.py --out OUT --videos order tempo company --validation --recipes recommended
    python benchmarks/programs/parts.py OUT --sets order-validation tempo-validation company-validation --name parts

For each choice of parts: accuracy of k-NN and of a linear probe less the best of mean, mean + deviation and max
pooling, in points, a column a set (means over the seeds), and the mean over sets and both protocols, by which choices
are made. A part's weight is what calibration gives it, but 1 where the choice says "always"."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from results import write_rows
from torch import Tensor

from scalefast import SCALE
from scalefast.calibration import CERTAIN, _agreement, _unit, masked_std, parts
from scalefast.evaluation import fit_linear_probe, knn_predict, represent
from scalefast.evaluation.data import class_labels
from scalefast.features import FeatureStore

CHOICES: dict[str, tuple[str, ...]] = {
    "mean, refined, refined std, CLS: recommended": ("mean", "refined", "refined_std", "cls"),
    "and std": ("mean", "std", "refined", "refined_std", "cls"),
    "and std, always": ("mean", "std always", "refined", "refined_std", "cls"),
    "std instead of refined": ("mean", "std", "refined_std", "cls"),
    "without refined": ("mean", "refined_std", "cls"),
    "without refined std": ("mean", "refined", "cls"),
    "mean, CLS": ("mean", "cls"),
    "mean, std": ("mean", "std"),
}
Parts = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of recommended.py")
    parser.add_argument(
        "--sets", nargs="+", required=True, help="folders in it, of runs and of the set's stores"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--name", help="of the files to write")
    args = parser.parse_args()
    gains = {name: [mean_gains(args, name, seed) for seed in range(args.seeds)] for name in args.sets}
    rows = [row(choice, gains) for choice in CHOICES]
    print("| parts | " + " | ".join(args.sets) + " | mean |\n|" + "---|" * (len(args.sets) + 2))
    for found in rows:
        cells = [f"{found[f'{name} knn']:+.1f} / {found[f'{name} linear']:+.1f}" for name in args.sets]
        print("| " + " | ".join([found["parts"], *cells, f"{found['mean']:+.1f}"]) + " |")
    if args.name:
        write_rows(rows, name=args.name, folder=args.out)


def row(choice: str, gains: dict[str, list[dict[str, tuple[float, float]]]]) -> dict[str, Any]:
    """Points over the best pooling of one choice, by set and protocol, and their mean."""
    found = {
        f"{name} {protocol}": statistics.fmean(seed[choice][place] for seed in seeds)
        for name, seeds in gains.items()
        for place, protocol in enumerate(("knn", "linear"))
    }
    return {"parts": choice, **found, "mean": statistics.fmean(found.values())}


def mean_gains(args: argparse.Namespace, name: str, seed: int) -> dict[str, tuple[float, float]]:
    """k-NN and linear of every choice less the best pooling, in points."""
    folder = args.out / name.removesuffix("-validation")
    stores = folder / "validation" if name.endswith("-validation") else folder
    splits = [FeatureStore.open(stores / f"{split}.store") for split in ("train", "test")]
    model = SCALE.from_pretrained(args.out / name / f"recommended-{seed}").eval()
    known, asked = (class_labels(split) for split in splits)
    poolings = [represent(model, split) for split in splits]
    scores = [score(known, asked, *(p[name] for p in poolings)) for name in ("mean", "mean_std", "max")]
    best = [max(values) for values in zip(*scores, strict=True)]
    train, test = (whole(model, split) for split in splits)
    weights, means = weigh(model, splits[0]), {part: values.mean(0) for part, values in train.items()}
    found = {}
    for choice, names in CHOICES.items():
        joined = [
            torch.cat([weights[part] * _unit(side[part] - means[part]) for part in names], dim=1)
            for side in (train, test)
        ]
        nearest, linear = score(known, asked, *joined)
        found[choice] = 100 * (nearest - best[0]), 100 * (linear - best[1])
    return found


def score(known: Tensor, asked: Tensor, train: Tensor, test: Tensor) -> tuple[float, float]:
    """Accuracy of k-NN and of a linear probe."""
    predictions = knn_predict(train, known, test), fit_linear_probe(train, known).predict(test)
    nearest, linear = ((found == asked).double().mean().item() for found in predictions)
    return nearest, linear


def whole(model: SCALE, store: FeatureStore, *, clips: slice = slice(None)) -> Parts:
    """The parts of all videos, of some of their clips."""
    features, positions, _ = store.sets()
    features, positions = features[:, clips].float(), positions[:, clips]
    lengths = torch.full((len(features),), features.shape[1])
    with torch.inference_mode():
        values = parts(model, features, positions, lengths)
    mean, refined, spread, cls = values.split([model.feature_dim] + 3 * [model.hidden_dim], dim=1)
    std = masked_std(features, None)
    return {
        "mean": mean,
        "std": std,
        "std always": std,
        "refined": refined,
        "refined_std": spread,
        "cls": cls,
    }


def weigh(model: SCALE, store: FeatureStore) -> dict[str, float]:
    """A weight for each part by the agreement of a video's halves, as calibration has it."""
    first, second = (whole(model, store, clips=slice(half, None, 2)) for half in (0, 1))
    beyond = {part: _agreement(first[part], second[part]) / CERTAIN for part in first}
    return {part: min(1.0, max(0.0, value)) for part, value in beyond.items()} | {
        "mean": 1.0,
        "std always": 1.0,
    }


if __name__ == "__main__":
    main()
