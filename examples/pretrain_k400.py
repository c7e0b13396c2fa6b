"""SCALE from videos to a report: scan, extract, pretrain, evaluate, report.

    python examples/pretrain_k400.py                                       the embedded demo
    python examples/pretrain_k400.py --backbone cvrl                       the same, with a backbone trained on it first
    python examples/pretrain_k400.py --root K400 --backbone videomae-b     Kinetics-400 on disk

K400 holds `train/` and `val/` with a folder for each class, or the official `train.csv` and `val.csv` beside
them. Without --root a small labelled set of action videos is rendered first (scalefast/demo): what tells its
classes apart is the order of two motions, which no single clip shows. Everything lands in --out; the same
command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

# Before torch is loaded: its threads shall not spin for long while they wait, or they take the cores from the
# processes that decode. (Sleeping at once, as OMP_WAIT_POLICY=PASSIVE has it, would slow training down.)
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import scalefast
from scalefast.cvrl import demo as demo_cvrl
from scalefast.cvrl import k400 as k400_cvrl
from scalefast.cvrl import train_cvrl
from scalefast.errors import InputError, ScalefastError
from scalefast.evaluation import evaluate, results_table, verdict, write_results
from scalefast.features import FeatureStore, extract
from scalefast.report import report
from scalefast.training import k400, pretrain, recommended
from scalefast.video import VideoList, scan_videos, test_recipe, train_recipe

SEEDS = 3  # on the demo set, where one run takes seconds; its results are the mean


def main() -> None:
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.root is None:
        from scalefast.demo import DemoSet, render_set

        demo = DemoSet(train_per_class=args.train_per_class, test_per_class=args.test_per_class)
        say(f"1/5  render {sum(1 for _ in demo.videos())} short videos of 12 classes")
        args.root = render_set(args.out / "videos", demo)
    train_videos, test_videos = read_split(args.root, "train"), read_split(args.root, "test")

    # Every file is opened once before anything expensive happens; bad ones are named in the ledger and left out.
    say("2/5  scan")
    for name, videos in (("train", train_videos), ("test", test_videos)):
        print(f"     {name}: {scan_videos(videos, out=args.out / f'scan-{name}.csv')}")

    if args.backbone == "cvrl":
        # No pretrained network: one is trained on the training videos, without labels, and then is a folder as any.
        say("     train a backbone by CVRL")
        own = demo_cvrl() if args.demo else k400_cvrl()
        own = dataclasses.replace(own, training=dataclasses.replace(own.training, seed=args.seed))
        ledger = args.out / "scan-train.csv"
        args.backbone = train_cvrl(
            train_videos, out=args.out / "cvrl", config=own, ledger=ledger, resume=True, device=args.device
        ).folder

    # Each video is decoded once: 16 random clips for training, 5 x 3 views for the test. Only the features are kept.
    backbone = scalefast.load_backbone(args.backbone, device=args.device)
    say(f"3/5  extract features with {args.backbone} ({backbone.feature_dim} numbers a clip)")
    shape = {"num_frames": backbone.num_frames, "stride": backbone.stride, "size": backbone.size}
    train = extract_once(train_videos, backbone, args.out / "train.store", train_recipe(**shape), args.seed)
    test = extract_once(test_videos, backbone, args.out / "test.store", test_recipe(**shape), args.seed)

    # The aggregator learns from the training features alone, without labels; then it is frozen and judged.
    seeds = range(args.seed, args.seed + (SEEDS if args.demo else 1))
    tables = []
    for seed in seeds:
        run = args.out / f"run-{seed}"
        say(f"4/5  pretrain and evaluate, seed {seed}")
        pretrain(train, out=run, config=args.config.replace(seed=seed), resume=True, device=args.device)
        tables.append(evaluate(run, train=train, test=test, out=run / "results.json").accuracies)
    results = mean_over_seeds(tables)
    notes = [f"Accuracies are means over {len(seeds)} seeds: {', '.join(map(str, seeds))}."]
    write_results(args.out / "results.json", results, details={"notes": notes})

    say("5/5  report")
    page = report(
        args.out / f"run-{args.seed}",
        train=train,
        test=test,
        results=args.out / "results.json",
        videos=test_videos.source,
        train_videos=train_videos.source,
        out=args.out / "report.html",
    )
    print("\n" + results_table(results))
    print("\n".join(verdict(protocol, row) for protocol, row in results.items()))
    print(f"\n{' '.join(notes)}\nOpen {page} in a browser for the map of the videos and their neighbours.")


def read_split(root: Path, split: str) -> VideoList:
    """The videos of `train` or `test`; Kinetics calls its labelled test set `val`."""
    for name in ("train",) if split == "train" else ("test", "val", "validate"):
        if (root / f"{name}.csv").is_file():
            return VideoList.read(root / f"{name}.csv", root=root / name, format="kinetics")
        if (root / name).is_dir():
            return VideoList.read(root / name)
    raise InputError(
        f"{root}: no {split} videos; expected {root / split}/CLASS/*.mp4, or {split}.csv beside {split}/"
    )


def extract_once(videos, backbone, out, recipe, seed):  # type: ignore[no-untyped-def]
    """The store of a list; one that is finished is taken as it is, an interrupted one is finished."""
    print(f"     {extract(videos, backbone=backbone, out=out, recipe=recipe, seed=seed)}")
    return FeatureStore.open(out)


def mean_over_seeds(tables: list) -> dict[str, dict[str, float]]:
    """{protocol: {representation: accuracy}}, averaged."""
    return {
        protocol: {name: sum(t[protocol][name] for t in tables) / len(tables) for name in row}
        for protocol, row in tables[0].items()
    }


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="Kinetics-400 on disk; without it the demo set is rendered")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="where everything lands (demo-out)"
    )
    parser.add_argument(
        "--backbone", help="name, folder, hub id, or cvrl: train one first (demo: r3d-tiny; K400: videomae-b)"
    )
    parser.add_argument("--epochs", type=int, help="passes over the features (demo: 160; K400: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of clips and training (0)")
    parser.add_argument(
        "--train-per-class", type=int, default=24, help="training videos a class to render (24)"
    )
    parser.add_argument("--test-per-class", type=int, default=10, help="test videos a class to render (10)")
    parser.add_argument("--device", help="cpu, cuda; without it the GPU if there is one")
    args = parser.parse_args()
    args.demo = args.root is None
    args.backbone = args.backbone or ("r3d-tiny" if args.demo else "videomae-b")
    # The demo has 288 videos, so a smaller batch for more steps, and narrower loss heads: those of the paper would take
    # 90% of its time. All else is the recommended recipe (docs/recipe.md); Kinetics-400 gets the published one.
    demo = recommended().replace(epochs=160, batch_size=96, learning_rate=1e-3, head_dim=512, target_dim=512)
    args.config = demo if args.demo else k400()
    if args.epochs is not None:
        args.config = args.config.replace(epochs=args.epochs)
    return args


if __name__ == "__main__":
    try:
        main()
    except ScalefastError as error:
        sys.exit(f"error: {error}")
