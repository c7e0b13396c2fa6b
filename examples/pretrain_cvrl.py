"""CVRL from videos to numbers: train a clip encoder without labels, then judge it beside its own initial weights.

    python examples/pretrain_cvrl.py                                    the embedded demo, minutes on a CPU
    python examples/pretrain_cvrl.py --root K400 --recipe k400          Kinetics-400 on disk, for GPUs

Prints linear evaluation (a clip alone, and a video by its views) for the encoder before and after training, with all
labels and with 10% of them, the mean of the seeds, and writes it to results.json; with --finetune the whole encoder is
trained on with labels as well. ROOT holds `train/` and `test/` (or `val/`) with a folder for each class. Everything
lands in --out; the same command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from statistics import fmean

os.environ.setdefault(
    "GOMP_SPINCOUNT", "10000"
)  # as in pretrain_k400.py: waiting threads leave the cores to decoders

import scalefast
from scalefast.backbones import R3D, save_r3d
from scalefast.cvrl import ClipAccuracy, FinetuneConfig, evaluate_linear, finetune, train_cvrl
from scalefast.cvrl.recipes import RECIPES
from scalefast.errors import InputError, ScalefastError
from scalefast.features import FeatureStore, extract
from scalefast.training.logs import SPEED_NAME, read_log
from scalefast.video import VideoList, test_recipe, train_recipe

SHARES = (1.0, 0.1)  # of the labels; CVRL reports 1% and 10%, and the demo has 24 training videos a class


def main() -> None:
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.root is None:
        from scalefast.demo import DemoSet, render_set

        args.root = render_set(args.out / "videos", DemoSet())
    train, test = read_split(args.root, "train"), read_split(args.root, "test")
    seeds = range(args.seed, args.seed + args.seeds)
    rows: dict[str, list[ClipAccuracy]] = {}
    for seed in seeds:
        config = RECIPES[args.recipe]()
        training = dataclasses.replace(config.training, seed=seed)
        if args.epochs is not None:
            training = dataclasses.replace(training, epochs=args.epochs)
        config = dataclasses.replace(config, training=training)

        # The same network with the weights that training begins with, as a backbone folder of its own.
        untrained = args.out / f"untrained-{seed}"
        if not untrained.exists():
            save_r3d(R3D(dataclasses.replace(config.encoder, seed=seed)), untrained)
        trained = args.out / f"cvrl-{seed}"
        begin = time.monotonic()
        train_cvrl(train, out=trained, config=config, resume=True, device=args.device)
        print(f"seed {seed}: trained in {time.monotonic() - begin:.0f} s", flush=True)

        folders = {"before": untrained, "after": trained}
        stores = {
            when: extract_both(folder, train, test, args.out / f"{folder.name}-stores", seed, args.device)
            for when, folder in folders.items()
        }
        for share in SHARES:
            for when in folders:
                accuracy = evaluate_linear(*stores[when], label_share=share, seed=seed)
                rows.setdefault(f"linear, {share:.0%} of the labels, {when}", []).append(accuracy)
        if args.finetune:
            short = FinetuneConfig(temporal=5, training=dataclasses.replace(training, learning_rate=1e-3))
            for when, folder in folders.items():
                run = finetune(
                    folder,
                    train=train,
                    test=test,
                    out=args.out / f"finetuned-{folder.name}",
                    config=short,
                    resume=True,
                    device=args.device,
                )
                assert run.accuracy is not None
                rows.setdefault(f"fine-tuned, {when}", []).append(run.accuracy)
    print_table(rows)
    seconds = [seconds_of(args.out / f"cvrl-{seed}") for seed in seeds]
    print(f"training, decoding included: {', '.join(f'{each:.0f}' for each in seconds)} s")
    write_results(args.out / "results.json", rows, seeds=list(seeds), seconds=seconds)


def read_split(root: Path, split: str) -> VideoList:
    for name in ("train",) if split == "train" else ("test", "val"):
        if (root / name).is_dir():
            return VideoList.read(root / name)
    raise InputError(f"{root}: no {split} videos; expected {root / split}/CLASS/*.mp4")


def extract_both(folder, train, test, out, seed, device):  # type: ignore[no-untyped-def]
    """Stores of both splits: random clips for training, 5 x 3 views for the test."""
    backbone = scalefast.load_backbone(folder, device=device)
    shape = {"num_frames": backbone.num_frames, "stride": backbone.stride, "size": backbone.size}
    out.mkdir(exist_ok=True)
    for videos, name, recipe in (
        (train, "train", train_recipe(**shape)),
        (test, "test", test_recipe(**shape)),
    ):
        extract(videos, backbone=backbone, out=out / name, recipe=recipe, seed=seed, progress=False)
    return FeatureStore.open(out / "train"), FeatureStore.open(out / "test")


def print_table(rows: dict[str, list[ClipAccuracy]]) -> None:
    """Means over the seeds, in %, with the seeds' own values; under every "after" the points gained."""
    print(f"\n{'accuracy, %':44}  {'clip':>6}  {'video':>6}  video, each seed")
    for name, values in rows.items():
        print_row(name, values)
        before = rows.get(name.removesuffix("after") + "before", [])
        if name.endswith("after"):
            pairs = zip(values, before, strict=True)
            gains = [ClipAccuracy(clip=a.clip - b.clip, video=a.video - b.video) for a, b in pairs]
            print_row("    gained", gains, sign="+")


def print_row(name: str, values: list[ClipAccuracy], *, sign: str = "") -> None:
    clip, video = (fmean(100 * getattr(value, kind) for value in values) for kind in ("clip", "video"))
    each = ", ".join(f"{100 * value.video:{sign}.1f}" for value in values)
    print(f"{name:44}  {clip:{sign}6.1f}  {video:{sign}6.1f}  {each}")


def seconds_of(run: Path) -> float:
    """From the first step to the last; of a run that was interrupted, of the session that ended it."""
    return float(read_log(run / SPEED_NAME)[-1]["seconds"])


def write_results(path: Path, rows: dict[str, list[ClipAccuracy]], **facts: list[float]) -> None:
    """What the table shows, seed by seed, in [0, 1]."""
    accuracy = {name: [dataclasses.asdict(value) for value in values] for name, values in rows.items()}
    path.write_text(json.dumps({**facts, "accuracy": accuracy}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, help="videos in train/ and test/; without it the demo set is rendered"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("cvrl-out"), help="where everything lands (cvrl-out)"
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="demo", help="of the training (demo)")
    parser.add_argument("--epochs", type=int, help="passes over the videos (recipe)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (1)")
    parser.add_argument("--finetune", action="store_true", help="train the whole encoder with labels, too")
    parser.add_argument("--device", help="cpu, cuda; without it the GPU if there is one")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except ScalefastError as error:
        sys.exit(f"error: {error}")
