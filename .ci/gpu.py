"""What needs a GPU, in one command and under nine minutes: is it right, and how fast is it?

`python3 .ci/gpu.py RESULTS` leaves machine.txt, tests.xml and benchmarks.json in the folder RESULTS. It runs with the
machine's own Python (torch with CUDA, triton, numpy, pytest, pytest-benchmark), installs nothing and fetches nothing.

Most of the tests' time is Triton compiling, so their files run side by side. Benchmarks follow one at a time, also if a
test failed: each refuses to time a wrong result. Whatever is not done in its time is ended and said to be so; the
results of everything else stay.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/gpu", "tests/kernels/triton")
BENCHMARKS = (  # what times something on a GPU, the most wanted first; the other files of benchmarks/ are about the CPU
    "benchmarks/test_gpu_step.py",
    "benchmarks/test_sparse_infonce.py",
    "benchmarks/test_set_attention.py",
    "benchmarks/test_set_embedding.py",
    "benchmarks/test_gpu_cold_start.py",
    "benchmarks/test_gpu_decode.py",
)
TEST_SECONDS, ALL_SECONDS = 290.0, 520.0


class Outcome(NamedTuple):
    """How a file of tests or benchmarks ended."""

    file: str
    status: str
    """"passed", "failed" or "timed out"."""
    seconds: float
    output: str


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python3 .ci/gpu.py RESULTS", file=sys.stderr)
        return 2
    begun = time.monotonic()
    results = Path(arguments[0])
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        environment = outside_the_checkout(scratch)
        (results / "machine.txt").write_text(describe(environment))
        print((results / "machine.txt").read_text(), flush=True)
        files = [
            str(path.relative_to(ROOT)) for name in TESTS for path in sorted((ROOT / name).glob("test_*.py"))
        ]
        workers = max(1, min(8, (os.cpu_count() or 2) // 2))
        tests = run_all(files, "junitxml", scratch, environment, until=begun + TEST_SECONDS, workers=workers)
        merge_tests(sorted(scratch.glob("*.junitxml")), results / "tests.xml")
        timed = run_all(
            BENCHMARKS, "benchmark-json", scratch, environment, until=begun + ALL_SECONDS, workers=1
        )
        merge_benchmarks(sorted(scratch.glob("*.benchmark-json")), results / "benchmarks.json")
    for outcome in (*tests, *timed):
        if outcome.status != "passed":
            print(f"\n==> {outcome.file}: {outcome.status}\n{outcome.output[-6000:]}")
    for outcome in (*tests, *timed):
        last = (outcome.output.strip().splitlines() or [""])[-1]
        print(f"{outcome.status:<10}{outcome.seconds:7.1f} s  {outcome.file}: {last}")
    print(f"{time.monotonic() - begun:.0f} s in all")
    return int(any(outcome.status != "passed" for outcome in (*tests, *timed)))


def outside_the_checkout(scratch: Path) -> dict[str, str]:
    """An environment in which `scalefast` is found by its own name and nothing beside it.

    Were the checkout on the path, its folder `kernels` would answer for another package of that name.
    """
    (scratch / "path").mkdir()
    (scratch / "path" / "scalefast").symlink_to(ROOT / "scalefast")
    path = os.pathsep.join(filter(None, (str(scratch / "path"), os.environ.get("PYTHONPATH", ""))))
    settings = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}


def describe(environment: Mapping[str, str]) -> str:
    """The GPU and the versions; ends the program where there is no GPU."""
    code = """if True:
        import sys
        try:
            import torch
        except ImportError as error:
            sys.exit(f"error: make gpu uses this machine's own Python, and torch does not import there: {error}")
        if not torch.cuda.is_available():
            sys.exit(f"error: no GPU: torch {torch.__version__} sees no CUDA device here, so nothing was run")
        import scalefast, triton
        gpu = torch.cuda.get_device_properties(0)
        print(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}")
        print(f"scalefast {scalefast.__version__}, torch {torch.__version__}, triton {triton.__version__}")
    """
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    return f"{done.stdout}Python {platform.python_version()}, {datetime.date.today()}, `make gpu`\n"


def run_all(
    files: Sequence[str],
    report: str,
    scratch: Path,
    environment: Mapping[str, str],
    *,
    until: float,
    workers: int,
) -> list[Outcome]:
    """Run pytest on each file in a process of its own, `workers` at a time; `until` by the monotonic clock."""

    def run(file: str) -> Outcome:
        begun = time.monotonic()
        where = scratch / f"{Path(file).parent.name}-{Path(file).stem}.{report}"
        command = [
            sys.executable,
            "-m",
            "pytest",
            file,
            "-q",
            "-p",
            "no:cacheprovider",
            f"--{report}={where}",
        ]
        command += ["--benchmark-only"] if report == "benchmark-json" else []
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=max(1.0, until - begun),
            )
            status, output = "failed" if done.returncode else "passed", done.stdout
        except subprocess.TimeoutExpired as late:
            told = late.stdout or b""
            status, output = "timed out", told.decode(errors="replace") if isinstance(told, bytes) else told
        return Outcome(file, status, time.monotonic() - begun, output)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(run, files))


def merge_tests(parts: Sequence[Path], whole: Path) -> None:
    """One JUnit file of many."""
    suites = ET.Element("testsuites")
    for part in parts:
        suites.extend(ET.parse(part).getroot().iter("testsuite"))
    ET.ElementTree(suites).write(whole, encoding="utf-8", xml_declaration=True)


def merge_benchmarks(parts: Sequence[Path], whole: Path) -> None:
    """One file of pytest-benchmark of many: they differ in `benchmarks` alone."""
    found = [json.loads(text) for part in parts if (text := part.read_text())]
    merged = {
        **(found[0] if found else {}),
        "benchmarks": [one for part in found for one in part["benchmarks"]],
    }
    whole.write_text(json.dumps(merged, indent=1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
