"""How the cost of training grows, as curves with the fitted exponent (1 = in proportion, 0 = not at all).

    python benchmarks/programs/growth.py --name 2026-11-21-cpu-growth            # about 2 minutes on 2 cores

    views    clips a set, 8 to 128           a step, 16 videos
    batch    videos a step, 128 to 65,536    a step, 2 x 8 clips, as far as --seconds a point allows
    small    videos a step, 128 to 65,536    a step, 2 x 2 clips of 64 numbers: its logits are a sixteenth
    dim      feature width, 256 to 2,048     a step, 64 videos
    videos   in the store, 10^3 to 10^7      the order of an epoch; drawing a batch of 512 (simulated rows)

Writes one row a point: axis, value, what, seconds; and one row a curve with its exponent. With `--axes` some curves are
measured alone; rows of the others that stand in the file already are kept, and `--from` begins a curve late and
joins it to what stands there. The best of two rounds counts, after one that does not; of a point whose round takes
long (`LONG`) the second round, or the only one, which pays for memory that it is the first to touch.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from results import read_rows, write_rows

from scalefast import SCALE, SCALEPretraining, kernels
from scalefast.training.memory import keep_freed_memory
from scalefast.training.sampler import BatchPlan

__all__ = ["exponent", "measure"]

AXES = {
    "views": [8, 16, 32, 64, 128],
    "batch": [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536],
    "small": [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536],
    "dim": [256, 512, 1024, 2048],
    "videos": [10**3, 10**4, 10**5, 10**6, 10**7],
}
"""Values of each axis."""

LONG = (4.0, 15.0)
"""Seconds above which a point has two rounds, of which the second counts, and one."""


def exponent(values: list[float], seconds: list[float]) -> float:
    """Slope of log(seconds) over log(values), by least squares."""
    x, y = ([math.log(number) for number in numbers] for numbers in (values, seconds))
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle_x) ** 2 for a in x)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / spread


def step_seconds(*, batch: int, views: int, dim: int, device: torch.device, rounds: int = 2) -> float:
    """Best of some forward and backward passes in bf16, after one that is not counted; 0: that one."""
    task = SCALEPretraining(SCALE(dim)).to(device).train()
    features = torch.randn(batch, 2, views, dim, device=device)
    positions = torch.rand(batch, 2, views, 7, device=device)
    rng = kernels.RandomState.create(0, rows=torch.arange(batch, device=device))

    def step() -> None:
        task.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = task(features, positions, rng=rng).loss
        loss.backward()

    return _best(step, rounds=rounds, device=device)


def measure(
    axis: str,
    *,
    device: torch.device,
    limit: float,
    largest: int | None = None,
    known: Sequence[Mapping[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """Rows of one axis; it ends before the point that would take longer than `limit` seconds a round.

    `known`: points of the axis measured before, which are not measured again."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in known:
        values, times = curves.setdefault(row["what"], ([], []))
        values.append(row["value"])
        times.append(row["seconds"])
        yield dict(row)
    for value in AXES[axis]:
        if largest is not None and value > largest:
            break
        if any(value in values for values, _ in curves.values()):
            continue
        expected = max((s[-1] * s[-1] / s[-2] for _, s in curves.values() if len(s) > 1), default=0.0)
        if expected > limit:
            break
        rounds = 2 - sum(expected > seconds for seconds in LONG)
        for what, seconds in _point(axis, value, device=device, rounds=rounds).items():
            known = curves.setdefault(what, ([], []))
            known[0].append(value)
            known[1].append(seconds)
            yield {"axis": axis, "value": value, "what": what, "seconds": seconds}
    for what, (values, times) in curves.items():
        yield {
            "axis": axis,
            "what": what,
            "exponent": round(exponent(values, times), 3),
            "points": len(values),
        }


def _point(axis: str, value: int, *, device: torch.device, rounds: int) -> dict[str, float]:
    if axis == "videos":
        return _sampling(value, device=device)
    sizes = {
        "views": (16, value, 256),
        "batch": (value, 8, 256),
        "small": (value, 2, 64),
        "dim": (64, 8, value),
    }
    batch, views, dim = sizes[axis]
    return {"step": step_seconds(batch=batch, views=views, dim=dim, device=device, rounds=rounds)}


def _sampling(videos: int, *, device: torch.device) -> dict[str, float]:
    """The order of an epoch, and a batch of 512 from a bank of so many rows, all of them the same memory."""
    plan = BatchPlan(num_videos=videos, batch_size=512, epochs=1, seed=0)
    features = torch.randn(1, 16, 64, device=device).half().expand(videos, -1, -1)
    positions = torch.rand(1, 16, 7, device=device).expand(videos, -1, -1)
    rows = plan.order(0, device=device)[: plan.batch]
    rng = kernels.RandomState.create(0, rows=rows)

    def draw() -> None:
        kernels.sample_views(features, positions, rows, views=8, rng=rng)

    return {
        "order of an epoch": _best(lambda: plan.order(0, device=device), rounds=2, device=device),
        "drawing a batch": _best(draw, rounds=5, device=device),
    }


def _best(action: Callable[[], Any], *, rounds: int, device: torch.device) -> float:
    seconds = []
    for _ in range(1 + rounds):  # the first counts only where it is alone
        begin = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:] or seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", choices=tuple(AXES), default=list(AXES))
    parser.add_argument("--seconds", type=float, default=8.0, help="longest round that is begun (8)")
    parser.add_argument(
        "--from", dest="first", type=int, help="smallest value to measure; points below it stay as they are"
    )
    parser.add_argument("--largest", type=int, help="largest value to measure")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", required=True, help="of the files in --out")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    path = args.out / f"{args.name}.json"
    before = read_rows(path) if path.exists() else []
    rows = [row for row in before if row["axis"] not in args.axes]
    for axis in args.axes:
        points = [row for row in before if row["axis"] == axis and "value" in row]
        known = [row for row in points if args.first is not None and row["value"] < args.first]
        for row in measure(axis, device=device, limit=args.seconds, largest=args.largest, known=known):
            print(row, flush=True)
            rows.append(row)
    rows.sort(key=lambda row: tuple(AXES).index(row["axis"]))  # stable: points stay in order
    for path in write_rows(rows, name=args.name, folder=args.out):
        print(path)


if __name__ == "__main__":
    main()
