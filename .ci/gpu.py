"""What needs a GPU, in one command and under nine minutes: is it right, and how fast is it?

`python3 .ci/gpu.py RESULTS` leaves machine.txt, tests.xml, benchmarks.json and log.txt in the folder RESULTS. It runs
with the machine's own Python (torch with CUDA, triton, numpy, pytest, pytest-benchmark), installs nothing and fetches
nothing.

Most of the tests' time is Triton compiling, so their files run side by side. Benchmarks follow one at a time, also if a
test failed: each refuses to time a wrong result. Whatever is not done in its time is interrupted, so that it still
writes down what it has, and said to be so. The results are written anew whenever a file ends: whoever ends this
program loses only what is running.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
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
PARTS = {
    "tests/kernels/triton/test_set_attention.py": 3,
    "tests/kernels/triton/test_sparse_infonce.py": 3,
}
"""Files that compile some two hundred kernels each, a second a kernel: in so many processes."""
TEST_SECONDS, ALL_SECONDS = 290.0, 520.0
BENCHMARK_SECONDS = 130.0
"""The most for one file of benchmarks: peers that compile for minutes leave the other files their time."""
GRACE = 6.0
"""Seconds in which what is interrupted may write down what it has."""
_LONGEST = 200_000  # characters of one file's output in log.txt


class Outcome(NamedTuple):
    """How a file of tests or benchmarks ended."""

    file: str
    status: str
    """"passed", "failed", "timed out" or "not begun"."""
    seconds: float
    output: str

    def line(self) -> str:
        last = (self.output.strip().splitlines() or [""])[-1]
        return f"{self.status:<10}{self.seconds:7.1f} s  {self.file}: {last}"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python3 .ci/gpu.py RESULTS", file=sys.stderr)
        return 2
    # Begun in the background of a shell it would ignore interrupts, and its children with it: they are told by one that
    # their time is over.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    begun = time.monotonic()
    results = Path(arguments[0])
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        environment = outside_the_checkout(scratch)
        (results / "machine.txt").write_text(describe(environment))
        print((results / "machine.txt").read_text(), flush=True)
        files = list(tests())
        cores = os.cpu_count() or 2
        workers = max(1, min(len(files), cores - 2))
        record = Record(results, scratch)
        run_all(
            files,
            "junitxml",
            scratch,
            # Each process's share of the cores: they compute references on the CPU, too.
            {**environment, "OMP_NUM_THREADS": str(max(1, cores // workers))},
            until=begun + TEST_SECONDS,
            workers=workers,
            record=record,
        )
        run_all(
            BENCHMARKS,
            "benchmark-json",
            scratch,
            {**environment, "SCALEFAST_BENCH_NOTES": str(scratch / "notes.jsonl")},
            until=begun + ALL_SECONDS,
            workers=1,
            record=record,
            most=BENCHMARK_SECONDS,
        )
    bad = [outcome for outcome in record.outcomes if outcome.status != "passed"]
    for outcome in bad:
        print(f"\n==> {outcome.file}: {outcome.status}, whole in log.txt\n{outcome.output[-1500:]}")
    print("\n".join(["", *(outcome.line() for outcome in record.outcomes)]))
    print(f"{time.monotonic() - begun:.0f} s in all")
    return int(bool(bad))


def tests() -> Iterator[str]:
    """Files of tests, those with most to compile first; `FILE@2/3` is the second third of a file's tests."""
    files = [
        str(path.relative_to(ROOT)) for name in TESTS for path in sorted((ROOT / name).glob("test_*.py"))
    ]
    for file in sorted(files, key=lambda file: file not in PARTS):
        parts = PARTS.get(file, 1)
        yield from (f"{file}@{part}/{parts}" if parts > 1 else file for part in range(1, parts + 1))


class Record:
    """The folder of results, written anew whenever a file ends."""

    def __init__(self, results: Path, scratch: Path) -> None:
        self.outcomes: list[Outcome] = []
        self._results, self._scratch, self._lock = results, scratch, threading.Lock()

    def __call__(self, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes.append(outcome)
            print(outcome.line(), flush=True)
            with (self._results / "log.txt").open("a") as log:
                log.write(f"==> {outcome.line()}\n{outcome.output[-_LONGEST:]}\n\n")
            merge_tests(sorted(self._scratch.glob("*.junitxml")), self._results / "tests.xml")
            merge_benchmarks(
                sorted(self._scratch.glob("*.benchmark-json")),
                self._results / "benchmarks.json",
                notes=self._scratch / "notes.jsonl",
            )


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
    """The GPU, the versions and what is not installed; ends the program where there is no GPU."""
    code = """if True:
        import importlib.util, sys
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
        wanted = ("pytest", "pytest_benchmark", "safetensors", "av", "nvidia.dali", "flash_attn", "xformers")
        def lacks(name):
            try:
                return importlib.util.find_spec(name) is None
            except ImportError:
                return True
        print("not installed:", ", ".join(filter(lacks, wanted)) or "nothing that is used")
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
    record: Record,
    most: float = math.inf,
) -> None:
    """Run pytest on each file in a process of its own, `workers` at a time, each for at most `most` seconds; `until` by
    the monotonic clock."""

    def run(job: str) -> None:
        begun = time.monotonic()
        if begun >= until:
            return record(Outcome(job, "not begun", 0.0, "no time was left"))
        file, _, part = job.partition("@")
        name = f"{Path(file).parent.name}-{Path(file).stem}-{part.replace('/', '-of-')}"
        command = [sys.executable, "-m", "pytest", file, "-q", "-p", "no:cacheprovider"]
        command += [f"--{report}={scratch / f'{name}.{report}'}"]
        command += ["--benchmark-only"] if report == "benchmark-json" else []
        printed = scratch / f"{name}.log"
        status = finished(
            command, {**environment, "SCALEFAST_TEST_PART": part}, printed, until=min(until, begun + most)
        )
        return record(Outcome(job, status, time.monotonic() - begun, printed.read_text(errors="replace")))

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, files))


def finished(command: Sequence[str], environment: Mapping[str, str], printed: Path, *, until: float) -> str:
    """Run a command to its end or to `until`, then interrupt it; nothing that it started outlives it."""
    with printed.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return "failed" if process.wait(until - time.monotonic()) else "passed"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest writes its reports
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                print("not ended by an interrupt: killed", file=output)
            return "timed out"
        finally:
            # Compilers, loaders, the processes of a cold start: they would go on beside what is timed next.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def merge_tests(parts: Sequence[Path], whole: Path) -> None:
    """One JUnit file of many."""
    suites = ET.Element("testsuites")
    for part in parts:
        try:
            suites.extend(ET.parse(part).getroot().iter("testsuite"))
        except ET.ParseError:  # killed while it wrote
            continue
    write(whole, ET.tostring(suites, encoding="unicode"))


def merge_benchmarks(parts: Sequence[Path], whole: Path, *, notes: Path) -> None:
    """One file of pytest-benchmark of many: they differ in `benchmarks` alone. And what unfinished ones found."""
    found = []
    for part in parts:
        try:
            found.append(json.loads(part.read_text()))
        except ValueError:  # empty: no benchmark ended; or killed while it wrote
            continue
    benchmarks = [one for part in found for one in part["benchmarks"]]
    names = {one["fullname"] for one in benchmarks}
    lines = notes.read_text().splitlines() if notes.exists() else []
    unfinished = [note for line in lines if (note := json.loads(line))["fullname"] not in names]
    merged = {**(found[0] if found else {}), "benchmarks": benchmarks, "unfinished": unfinished}
    write(whole, json.dumps(merged, indent=1))


def write(place: Path, text: str) -> None:
    """Whole or not at all."""
    aside = place.with_suffix(".part")
    aside.write_text(text)
    aside.replace(place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
