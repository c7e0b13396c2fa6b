"""`make gpu`: what its script does with files that pass, fail and never end, shown on a machine without a GPU."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

PASSES = "def test_one(): pass\ndef test_two(): pass\n"
FAILS = "def test_three(): assert 1 == 2\n"
HANGS = """import pathlib, subprocess, sys, time
def test_four(): pass
def test_five():
    child = "import time\\nwhile True: open({child!r}, 'a').write('x'), time.sleep(0.05)"
    subprocess.Popen([sys.executable, "-c", child])
    while not pathlib.Path({child!r}).exists(): time.sleep(0.05)
    pathlib.Path({begun!r}).touch()
    time.sleep(60)
"""
DEAF = """import pathlib, signal, time
def test_six():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pathlib.Path({begun!r}).touch()
    time.sleep(60)
"""
TIMES = "def test_seven(benchmark):\n    benchmark.pedantic(lambda: 1, rounds=3)\n"
TIMES_THEN_HANGS = """import pathlib, time
def test_eight(benchmark):
    benchmark.pedantic(lambda: 1, rounds=3)
def test_nine(benchmark):
    benchmark.extra_info["ours"] = 7
    pathlib.Path({begun!r}).touch()
    time.sleep(60)
"""


@pytest.fixture
def script(root):
    spec = importlib.util.spec_from_file_location("gpu_script", root / ".ci" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def in_no_time(script, tmp_path, monkeypatch):
    """Time is up for a file as soon as a test in it has touched `NAME.begun`; machines are slow and fast."""

    class Process(subprocess.Popen):
        def wait(self, timeout=None):
            name = Path(self.args[3]).stem
            if timeout is None or timeout <= script.GRACE:
                return super().wait(timeout)
            while not (tmp_path / f"{name}.begun").exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return super().wait(0.05)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(script.subprocess, "Popen", Process)
    monkeypatch.setattr(script, "GRACE", 20.0)


def begun(tmp_path, name):
    return str(tmp_path / f"test_{name}.begun")


def run(script, tmp_path, contents, report="junitxml", *, seconds=100.0, most=100.0):
    """Outcomes by file, as the script runs them on a machine with a GPU."""
    files = []
    for name, text in contents.items():
        (tmp_path / f"test_{name}.py").write_text(text)
        files.append(str(tmp_path / f"test_{name}.py"))
    until = time.monotonic() + seconds
    # Without the run around this one, in whose processes pytest-benchmark refuses to time anything.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["SCALEFAST_BENCH_NOTES"] = str(tmp_path / "notes.jsonl")
    record = script.Record(tmp_path / "results", tmp_path)
    script.run_all(files, report, tmp_path, environment, until=until, workers=3, record=record, most=most)
    return {outcome.file.rpartition("test_")[2].removesuffix(".py"): outcome for outcome in record.outcomes}


def cases(results):
    return ET.parse(results / "tests.xml").getroot().findall(".//testcase")


def test_every_file_is_run_and_one_result_comes_of_them(script, tmp_path, results):
    found = run(script, tmp_path, {"passes": PASSES, "fails": FAILS})
    assert {name: one.status for name, one in found.items()} == {"passes": "passed", "fails": "failed"}
    assert "1 == 2" in found["fails"].output and "1 == 2" in (results / "log.txt").read_text()
    assert sorted(case.get("name") for case in cases(results)) == ["test_one", "test_three", "test_two"]
    failed = [case.get("name") for case in cases(results) if case.find("failure") is not None]
    assert failed == ["test_three"]
    assert sorted(path.name for path in results.iterdir()) == ["benchmarks.json", "log.txt", "tests.xml"]


def test_what_does_not_end_is_ended_with_all_that_it_began(script, tmp_path, results, in_no_time):
    """What came before in the same file stays; a child that would go on beside the next file does not."""
    child = tmp_path / "written by a child"
    hangs = HANGS.format(child=str(child), begun=begun(tmp_path, "hangs"))
    found = run(script, tmp_path, {"hangs": hangs, "passes": PASSES})
    assert {name: one.status for name, one in found.items()} == {"passes": "passed", "hangs": "timed out"}
    assert {"test_one", "test_two", "test_four"} <= {case.get("name") for case in cases(results)}
    written = child.stat().st_size
    time.sleep(0.5)
    assert child.stat().st_size == written > 0


def test_what_hears_no_interrupt_is_killed(script, tmp_path, results, in_no_time, monkeypatch):
    monkeypatch.setattr(script, "GRACE", 0.5)
    found = run(script, tmp_path, {"deaf": DEAF.format(begun=begun(tmp_path, "deaf"))})
    assert found["deaf"].status == "timed out" and "killed" in found["deaf"].output
    assert run(script, tmp_path, {"late": PASSES}, seconds=-1.0)["late"].status == "not begun"


def test_a_file_has_its_own_time_too(script, tmp_path, results):
    assert run(script, tmp_path, {"long": PASSES}, most=0.0)["long"].status == "timed out"


def test_benchmarks_are_gathered(script, root, tmp_path, results, in_no_time):
    (tmp_path / "conftest.py").write_text((root / "benchmarks" / "conftest.py").read_text())
    files = {"a": TIMES, "b": TIMES_THEN_HANGS.format(begun=begun(tmp_path, "b"))}
    found = run(script, tmp_path, files, "benchmark-json")
    assert {name: one.status for name, one in found.items()} == {"a": "passed", "b": "timed out"}, found
    merged = json.loads((results / "benchmarks.json").read_text())
    assert [one["name"] for one in merged["benchmarks"]] == ["test_seven", "test_eight"]
    assert merged["machine_info"]
    (note,) = merged["unfinished"]
    assert note["fullname"].endswith("::test_nine") and note["ours"] == 7


def test_reports_cut_off_in_the_middle_cost_no_others(script, tmp_path):
    (tmp_path / "a.junitxml").write_text("<testsuites><testsuite name='a'><testc")
    (tmp_path / "b.junitxml").write_text("<testsuites><testsuite name='b'/></testsuites>")
    script.merge_tests(sorted(tmp_path.glob("*.junitxml")), tmp_path / "tests.xml")
    assert [suite.get("name") for suite in ET.parse(tmp_path / "tests.xml").getroot()] == ["b"]
    (tmp_path / "a.json").write_text('{"benchmarks": [')
    script.merge_benchmarks([tmp_path / "a.json"], tmp_path / "whole", notes=tmp_path / "none")
    assert json.loads((tmp_path / "whole").read_text()) == {"benchmarks": [], "unfinished": []}


def test_the_files_that_it_names_are_there(script, root):
    assert all((root / name).is_file() for name in script.BENCHMARKS)
    assert all(list((root / name).glob("test_*.py")) for name in script.TESTS)
    assert all((root / name).is_file() for name in script.PARTS)
    jobs = list(script.tests())
    assert len(jobs) == len(set(jobs)) and all((root / job.partition("@")[0]).is_file() for job in jobs)


def test_parts_of_a_file_are_the_file(script, root, tmp_path, results):
    conftest = (root / "tests" / "kernels" / "triton" / "conftest.py").read_text()
    kept = conftest[conftest.index("def pytest_collection") : conftest.index("@pytest.fixture")]
    (tmp_path / "conftest.py").write_text(f"import os, pytest\n{kept}")
    (tmp_path / "test_many.py").write_text("".join(f"def test_{i}(): pass\n" for i in range(7)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    record = script.Record(results, tmp_path)
    jobs = [f"{tmp_path / 'test_many.py'}@{part}/3" for part in (1, 2, 3)]
    until = time.monotonic() + 100.0
    script.run_all(jobs, "junitxml", tmp_path, environment, until=until, workers=3, record=record)
    assert [outcome.status for outcome in record.outcomes] == ["passed"] * 3
    assert sorted(case.get("name") for case in cases(results)) == [f"test_{i}" for i in range(7)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(root, tmp_path):
    command = [sys.executable, str(root / ".ci" / "gpu.py"), str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: no GPU: torch")
    assert len(done.stderr.splitlines()) == 1
