"""The recommended recipe against the best label-free baseline, over seeds, on sets of known structure.

    python benchmarks/programs/recommended.py --out OUT                                drawn features, 5 seeds
    python benchmarks/programs/recommended.py --out OUT --videos order tempo company   rendered videos, 5 seeds
    python benchmarks/programs/recommended.py --out OUT --train TRAIN --test TEST      any stores

prints a markdown table: for each set, recipe and protocol the recommended representation and the best baseline on the
test videos (accuracy, mean over seeds), their difference with its 95% interval over test videos, and the lowest and
highest difference of a seed. `--name NAME` keeps it as OUT/NAME.json and .csv with what it was measured on. With
`--validation` a quarter of the training videos takes the place of the test videos: to choose by. A call that was
stopped goes on where it was."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import write_rows

import scalefast
from scalefast.demo import VIDEO_STRUCTURES, DemoSet, render_set
from scalefast.demo.feature_sets import STRUCTURES, FeatureSet, write_feature_set
from scalefast.evaluation import Results, evaluate_all
from scalefast.evaluation.data import class_labels
from scalefast.evaluation.linear import validation_split
from scalefast.features import FeatureStore, extract
from scalefast.training import PretrainConfig, pretrain
from scalefast.training.recipes import RECIPES
from scalefast.video import VideoList, test_recipe, train_recipe

SMALL = {"epochs": 80, "batch_size": 96, "learning_rate": 1e-3, "hidden_dim": 64, "projection_dim": 64, "head_dim": 256,
         "target_dim": 256}  # fmt: skip
"""Sizes for drawn sets of 64 numbers a clip; all else is the recipe's."""
DEMO = {"epochs": 160, "batch_size": 96, "learning_rate": 1e-3, "head_dim": 512, "target_dim": 512}
"""Sizes of examples/pretrain_k400.py."""
VIDEOS = {
    "order": DemoSet(),
    "tempo": DemoSet(structure="tempo", train_per_class=48, test_per_class=40),
    "company": DemoSet(structure="company", train_per_class=24, test_per_class=20),
}
"""288 training videos each; `order` is the demo's set, with its 120 test videos, the others have 240."""
BACKBONE = "r3d-tiny"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set: what is trained on, what accuracies speak of, and the sizes that go with it."""

    name: str
    train: Path
    test: Path
    sizes: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for sets and runs")
    parser.add_argument("--structures", nargs="+", choices=STRUCTURES, metavar="DRAWN",
                        default=["order", "spread", "appearance", "rare"])  # fmt: skip
    parser.add_argument(
        "--videos", nargs="+", choices=VIDEO_STRUCTURES, help="rendered sets, instead of drawn ones"
    )
    parser.add_argument("--train", type=Path, help="store of training videos, instead of drawn sets")
    parser.add_argument("--test", type=Path, help="store of test videos")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["paper", "recommended"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="160 for videos and stores, 80 for drawn sets")
    parser.add_argument("--validation", action="store_true", help="judge on a quarter of the training videos")
    parser.add_argument("--name", help="of the files to write")
    args = parser.parse_args()
    rows = []
    print("| set | recipe | protocol | recommended | best baseline | difference, 95% | by seed |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for case in cases(args):
        for recipe in args.recipes:
            for row in compare(args, case, recipe):
                rows.append(row)
                print(line(row), flush=True)
    if args.name:
        write_rows(rows, name=args.name, folder=args.out)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """What was asked for, drawn or rendered and extracted where it is not there yet."""
    if args.train is not None:
        found = [Case(name="stores", train=args.train, test=args.test or args.train, sizes=DEMO)]
    elif args.videos:
        found = [
            Case(name=name, sizes=DEMO, **rendered(args.out / name, VIDEOS[name])) for name in args.videos
        ]
    else:
        found = [Case(name=name, sizes=SMALL, **drawn(args.out / name, name)) for name in args.structures]
    for case in found:
        yield held_out(case, args.out / case.name / "validation") if args.validation else case


def drawn(folder: Path, structure: Any) -> dict[str, Path]:
    """Stores of a drawn set, of another seed than those by which recipes were chosen (docs/ablation.md)."""
    if not (folder / "test.store").exists():
        write_feature_set(folder, FeatureSet(structure=structure, seed=2026), overwrite=True)
    return {"train": folder / "train.store", "test": folder / "test.store"}


def rendered(folder: Path, demo: DemoSet) -> dict[str, Path]:
    """Stores of a rendered set, as examples/pretrain_k400.py extracts them."""
    videos = render_set(folder / "videos", demo)
    backbone = scalefast.load_backbone(BACKBONE)
    shape = {"num_frames": backbone.num_frames, "stride": backbone.stride, "size": backbone.size}
    for split, recipe in (("train", train_recipe(**shape)), ("test", test_recipe(**shape))):
        listed = VideoList.read(videos / split)
        extract(
            listed, backbone=backbone, out=folder / f"{split}.store", recipe=recipe, seed=0, progress=False
        )
    return {"train": folder / "train.store", "test": folder / "test.store"}


def held_out(case: Case, folder: Path) -> Case:
    """The training videos as two stores, a quarter of each class in the second."""
    whole = FeatureStore.open(case.train)
    labels = class_labels(whole)
    marked = validation_split(labels, fraction=0.25)
    paths = {"train": folder / "train.store", "test": folder / "test.store"}
    for path, mask in zip(paths.values(), (~marked, marked), strict=True):
        rows = mask.nonzero()[:, 0]
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            FeatureStore.create(
                path, features=whole.features[:][rows], positions=whole.positions[:][rows],
                labels=labels[rows], ids=[whole.ids[row] for row in rows], classes=whole.classes,
            )  # fmt: skip
    steps = {"epochs": round(case.sizes["epochs"] / 0.75)}  # as many as on all training videos
    return Case(name=f"{case.name}-validation", sizes=case.sizes | steps, **paths)


def compare(args: argparse.Namespace, case: Case, recipe: str) -> list[dict[str, Any]]:
    """Train every seed, evaluate all together: a row a protocol, accuracies in percent, differences in points."""
    config: PretrainConfig = RECIPES[recipe]().replace(**case.sizes)
    if args.epochs is not None:
        config = config.replace(epochs=args.epochs)
    runs = [args.out / case.name / f"{recipe}-{seed}" for seed in range(args.seeds)]
    for seed, run in enumerate(runs):
        pretrain(case.train, out=run, config=config.replace(seed=seed), resume=True, progress=False)
    results = evaluate_all(runs, trains=[case.train], tests=[case.test])
    return [
        {
            "set": case.name,
            "recipe": recipe,
            "epochs": config.epochs,
            "seeds": args.seeds,
            **judged(results, protocol),
        }
        for protocol in results.accuracies
    ]


def judged(results: Results, protocol: str) -> dict[str, Any]:
    """The recommended representation against the baseline that is best on the test videos."""
    row, found = results.accuracies[protocol], results.differences[protocol]
    each = results.details["protocols"][protocol]
    values = [each[column].get("each", [row[column]]) for column in (found.ours, found.theirs)]
    gaps = [round(100 * (ours - theirs), 2) for ours, theirs in zip(*values, strict=True)]
    share = {"recommended": row[found.ours], "baseline": row[found.theirs], "difference": found.value,
             "low": found.low, "high": found.high}  # fmt: skip
    return {
        "protocol": protocol,
        **{name: round(100 * value, 2) for name, value in share.items()},
        "best_baseline": found.theirs,
        "difference_by_seed": gaps,
        "deviation_of_seeds": round(statistics.stdev(gaps), 2) if len(gaps) > 1 else None,
        "accuracies": {name: round(100 * value, 2) for name, value in row.items()},
    }


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    gaps = row["difference_by_seed"]
    return (
        f"| {row['set']} | {row['recipe']} | {row['protocol']} | {row['recommended']:.1f} | {row['baseline']:.1f} "
        f"({row['best_baseline']}) | {row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f}) | "
        f"{min(gaps):+.1f} to {max(gaps):+.1f} |"
    )


if __name__ == "__main__":
    main()
