"""Benchmark results as committed files: JSON and CSV, with what they were measured on, of which code and when.

    python -m pytest benchmarks --benchmark-only --benchmark-json=bench.json
    python benchmarks/programs/results.py bench.json --name 2026-11-21-cpu --out benchmarks/results

A row is one contender of one benchmark, with its seconds; `growth.py` writes its rows by the same function.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import io
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scalefast._files import write_atomically
from scalefast.doctor.machine import cores, cpu_features, cpu_name

__all__ = ["circumstances", "read_rows", "rows_of_benchmarks", "write_rows"]

_PACKAGES = ("torch", "numpy", "triton", "av", "scikit-learn", "faiss-cpu", "safetensors")


def circumstances() -> dict[str, Any]:
    """Hardware, versions, date and commit; `commit` ends in `+` where the checkout has changes."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "hardware": f"{cpu_name()}, {cores()} cores, {' '.join(cpu_features())}",
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "commit": _commit(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def write_rows(rows: Sequence[Mapping[str, Any]], *, name: str, folder: Path) -> tuple[Path, Path]:
    """`folder/name.json` and `folder/name.csv`; in the CSV what was measured on stands in every row."""
    folder.mkdir(parents=True, exist_ok=True)
    found = circumstances()
    whole = {**found, "rows": list(rows)}
    paths = folder / f"{name}.json", folder / f"{name}.csv"
    write_atomically(paths[0], (json.dumps(whole, indent=1) + "\n").encode())
    flat = {key: found[key] for key in ("hardware", "threads", "date", "commit")} | {
        "gpus": "; ".join(found["gpus"]),
        "torch": found["versions"]["torch"],
    }
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    table = csv.DictWriter(text, [*columns, *flat], lineterminator="\n")
    table.writeheader()
    table.writerows({**row, **flat} for row in rows)
    write_atomically(paths[1], text.getvalue().encode())
    return paths


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file that `write_rows` left."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def rows_of_benchmarks(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a contender from what `--benchmark-json` wrote: benchmark, contender, best seconds, and how often as
    fast ours is, if ours is one of them; absent peers have a reason instead."""
    return [row for benchmark in found["benchmarks"] for row in _rows_of(benchmark)]


def _rows_of(benchmark: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    name, info = f"{Path(benchmark['fullname']).name}", benchmark["extra_info"]
    if "seconds" not in info:
        yield {"benchmark": name, "contender": "ours", "seconds": benchmark["stats"]["min"]}
        return
    ours = info["seconds"].get("ours")  # parts of one thing have times too, and no contender among them
    for contender, seconds in info["seconds"].items():
        row = {"benchmark": name, "contender": contender, "seconds": seconds}
        yield row if ours is None else {**row, "ours_is_faster": round(seconds / ours, 3)}
    for contender, reason in info.get("absent", {}).items():
        yield {"benchmark": name, "contender": contender, "absent": reason}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmarks", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("--name", required=True, help="of the files, for example 2026-11-21-cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    rows = rows_of_benchmarks(json.loads(args.benchmarks.read_text()))
    for path in write_rows(rows, name=args.name, folder=args.out):
        print(path)


if __name__ == "__main__":
    main()
