"""Videos of minutes whose class is the order of events: SCALE on two levels, on one, without times, and the baselines.

    python benchmarks/programs/long_videos.py --out OUT --seeds 0 1 2 --name NAME

renders 216 videos of three minutes (scalefast/demo/chapters.py), takes 144 clips of each through a small backbone in
one pass, and prints accuracies on the test videos, means over the seeds: of poolings of the clips and untrained SCALE,
then for each way to train SCALE of its recommended representation and CLS, with the difference to the best of the
former and its 95% interval over test videos. `--validation` judges on a quarter of the training videos: to choose by. A
call that was stopped goes on where it was."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recommended import Case, held_out
from results import write_rows

import scalefast
from scalefast.demo import DemoSet, render_set
from scalefast.evaluation import Results, evaluate
from scalefast.evaluation._outcome import Outcome, compare
from scalefast.evaluation.baselines import BASELINES
from scalefast.evaluation.comparison import best_baseline
from scalefast.evaluation.data import class_labels
from scalefast.evaluation.knn import knn_predict
from scalefast.evaluation.linear import fit_linear_probe
from scalefast.features import FeatureStore, extract
from scalefast.parts import WHEN_PARTS
from scalefast.training import PretrainConfig, pretrain, recommended
from scalefast.video import VideoList, test_recipe
from scalefast.windows import cut_windows, join_windows

DEMO = DemoSet(structure="chapters", train_per_class=24, test_per_class=12)
BACKBONE, CLIPS, WINDOW = "r3d-tiny", 144, 8
"""Clips begin every 1.24 s; a window of 8 lasts 11 s, and a video has 18."""
STRETCHES = 8
"""Parts of the video whose mean features say when something happens to whoever has labels."""

SIZES = {"hidden_dim": 64, "projection_dim": 64, "head_dim": 256, "target_dim": 256}
FIRST = recommended().replace(**SIZES, learning_rate=1e-3, epochs=10, batch_size=256, views=4)
"""The first level: 2,592 windows of 8 clips."""
SECOND = recommended().replace(**SIZES, learning_rate=3e-3, epochs=200, batch_size=96, views=9)
"""The second level: 144 sequences of 18 windows."""
FLAT = SECOND.replace(views=16)
"""One level: a step sees two sets of 16 of the 144 clips, an evaluation all of them."""

Outcomes = dict[str, dict[str, Outcome]]
"""{protocol: {representation: outcome}}."""
BLIND = {
    "position_use": "none",
    "time_weight": 0.0,
    "parts": tuple(part for part in FIRST.parts or () if part not in WHEN_PARTS),
}
"""Changes that keep all times from SCALE and from what is put together of it."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to train: what is trained on, judged on, and how."""

    name: str
    folder: Path
    train: Path
    test: Path
    config: PretrainConfig


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for videos, stores and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--validation", action="store_true", help="judge on a quarter of the training videos")
    parser.add_argument("--name", help="of the files to write")
    args = parser.parse_args()
    case = long_stores(args.out)
    if args.validation:
        case = held_out(case, args.out / "validation")
    found: dict[str, list[Results]] = {}
    for seed in args.seeds:
        for way in ways(args.out / case.name / f"seed-{seed}", case, seed=seed):
            run = way.folder / "run"
            pretrain(way.train, out=run, config=way.config, resume=True, progress=False)
            results = evaluate(run, train=way.train, test=way.test, out=way.folder / "results.json")
            print(f"seed {seed}, {way.name}: {brief(results)}", flush=True)
            found.setdefault(way.name, []).append(results)
    rows = table({name: mean_of_seeds(each) for name, each in found.items()}, seeds=len(args.seeds))
    rows += by_stretches(case)
    print(
        "\n| what | protocol | accuracy, % | less the best baseline, 95% | each seed |\n|---|---|---|---|---|"
    )
    print("\n".join(map(line, rows)))
    if args.name:
        write_rows(rows, name=args.name, folder=args.out)


def long_stores(out: Path) -> Case:
    """The videos rendered, and both splits extracted alike, where they are not there yet."""
    videos = render_set(out / "videos", DEMO)
    backbone = scalefast.load_backbone(BACKBONE)
    recipe = test_recipe(
        num_frames=backbone.num_frames, stride=backbone.stride, size=backbone.size, temporal=CLIPS, spatial=1
    )
    for split in ("train", "test"):
        listed = VideoList.read(videos, split=split)  # as `scalefast extract VIDEOS --subset SPLIT` reads it
        store = out / f"{split}.store"
        extract(listed, backbone=backbone, out=store, recipe=recipe, positions="seconds", progress=False)
    sizes = {"epochs": SECOND.epochs}
    return Case(name="long", train=out / "train.store", test=out / "test.store", sizes=sizes)


def ways(folder: Path, case: Case, *, seed: int) -> Iterator[Way]:
    """All ways to train with one seed; what they are trained on is made where it is not there yet."""
    windows, first = folder / "windows.store", folder / "level-1"
    if not windows.exists():
        cut_windows(case.train, out=windows, clips=WINDOW)
    pretrain(windows, out=first, config=FIRST.replace(seed=seed), resume=True, progress=False)
    segments = {
        split: joined(first, store, folder / f"{split}-segments.store")
        for split, store in (("train", case.train), ("test", case.test))
    }
    clips = {"train": case.train, "test": case.test}
    two, one = (config.replace(seed=seed, **case.sizes) for config in (SECOND, FLAT))
    yield Way(name="windows", folder=folder / "windows", **segments, config=two)
    yield Way(name="clips", folder=folder / "clips", **clips, config=one)
    yield Way(name="windows, no times", folder=folder / "blind", **segments, config=two.replace(**BLIND))
    yield Way(name="clips, no times", folder=folder / "clips-blind", **clips, config=one.replace(**BLIND))


def joined(run: Path, store: Path, out: Path) -> Path:
    """`join_windows`, once."""
    if not out.exists():
        join_windows(run, store, out=out, clips=WINDOW)
    return out


def mean_of_seeds(each: list[Results]) -> Outcomes:
    """A video's score is its mean over the seeds; all have the same test videos, if in stores of their own."""
    return {
        protocol: {column: mean_of([one.outcomes[protocol][column] for one in each]) for column in row}
        for protocol, row in each[0].outcomes.items()
    }


def mean_of(outcomes: list[Outcome]) -> Outcome:
    scores = torch.stack([outcome.scores.double() for outcome in outcomes if outcome.scores is not None])
    settings = {"each": [outcome.value for outcome in outcomes]}
    return Outcome(value=float(scores.mean()), scores=scores.mean(0), settings=settings)


def table(found: dict[str, Outcomes], *, seeds: int) -> list[dict[str, Any]]:
    """Baselines of the raw clips, then every way against the best of them; accuracies in percent."""
    baselines = {
        protocol: {name: outcome for name, outcome in row.items() if name in BASELINES}
        for protocol, row in found["clips"].items()
    }
    rows = [
        {"what": name, "protocol": protocol, "seeds": seeds, **number(outcome)}
        for protocol, row in baselines.items()
        for name, outcome in row.items()
    ]
    for way, outcomes in found.items():
        for protocol, row in outcomes.items():
            best = best_baseline({name: outcome.value for name, outcome in baselines[protocol].items()})
            for column in ("recommended", "refined", "cls"):
                gap = compare(row[column], baselines[protocol][best], names=(column, best), seed=0)
                ends = {"difference": gap.value, "low": gap.low, "high": gap.high}
                rows.append(
                    {
                        "what": f"SCALE, {way}: {column}", "protocol": protocol, "seeds": seeds,
                        **number(row[column]), "best_baseline": best, **{k: percent(v) for k, v in ends.items()},
                    }
                )  # fmt: skip
    return rows


def by_stretches(case: Case) -> list[dict[str, Any]]:
    """What features averaged in stretches of time tell, side by side: that the order is there to be found."""
    stores = [FeatureStore.open(path) for path in (case.train, case.test)]
    x, test_x = (s.features[:].float().unflatten(1, (STRETCHES, -1)).mean(2).flatten(1) for s in stores)
    y, test_y = (class_labels(store) for store in stores)
    found = {
        "knn": knn_predict(x, y, test_x),
        "linear": fit_linear_probe(x, y).predict(test_x),
    }
    what = f"means of {STRETCHES} stretches of time"
    return [
        {"what": what, "protocol": protocol, **number(Outcome.of(predicted, test_y, {}))}
        for protocol, predicted in found.items()
    ]


def number(outcome: Outcome) -> dict[str, Any]:
    """Accuracy in percent, and that of every seed."""
    each = outcome.settings.get("each", [outcome.value])
    return {"accuracy": percent(outcome.value), "by_seed": [percent(value) for value in each]}


def percent(share: float) -> float:
    return round(100 * share, 2)


def brief(results: Results) -> str:
    """The columns that count, in one line."""
    return "; ".join(
        f"{protocol} {', '.join(f'{name} {100 * row[name]:.1f}' for name in ('mean', 'cls', 'recommended'))}"
        for protocol, row in results.accuracies.items()
    )


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    gap = ""
    if "difference" in row:
        gap = f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f}; {row['best_baseline']})"
    each = ", ".join(f"{value:.1f}" for value in row["by_seed"])
    return f"| {row['what']} | {row['protocol']} | {row['accuracy']:.1f} | {gap} | {each} |"


if __name__ == "__main__":
    main()
