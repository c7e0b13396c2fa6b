"""`make gpu`: what its script does with files that pass, fail and never end, shown on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
import torch

PASSES = "def test_one(): pass\ndef test_two(): pass\n"
FAILS = "def test_three(): assert 1 == 2\n"
HANGS = "import time\ndef test_four():\n    print('begun', flush=True)\n    time.sleep(60)\n"
TIMES = "def test_five(benchmark):\n    benchmark.pedantic(lambda: 1, rounds=3)\n"


@pytest.fixture
def script(root):
    spec = importlib.util.spec_from_file_location("gpu_script", root / ".ci" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script, tmp_path, contents, report="junitxml", *, seconds=50.0):
    files = []
    for name, text in contents.items():
        (tmp_path / f"test_{name}.py").write_text(text)
        files.append(str(tmp_path / f"test_{name}.py"))
    until = time.monotonic() + seconds
    # Without the run around this one, in whose processes pytest-benchmark refuses to time anything.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return script.run_all(files, report, tmp_path, environment, until=until, workers=3)


def test_every_file_is_run_and_one_result_comes_of_them(script, tmp_path):
    found = run(script, tmp_path, {"passes": PASSES, "fails": FAILS})
    assert [one.status for one in found] == ["passed", "failed"]
    assert "1 == 2" in found[1].output
    script.merge_tests(sorted(tmp_path.glob("*.junitxml")), tmp_path / "tests.xml")
    cases = ET.parse(tmp_path / "tests.xml").getroot().findall(".//testcase")
    assert sorted(case.get("name") for case in cases) == ["test_one", "test_three", "test_two"]
    assert [case.get("name") for case in cases if case.find("failure") is not None] == ["test_three"]


def test_what_does_not_end_is_ended_and_said(script, tmp_path):
    begun = time.monotonic()
    found = run(script, tmp_path, {"hangs": HANGS}, seconds=4.0)
    assert time.monotonic() - begun < 30
    assert [one.status for one in found] == ["timed out"]


def test_benchmarks_are_gathered(script, tmp_path):
    found = run(script, tmp_path, {"a": TIMES, "b": TIMES.replace("five", "six")}, "benchmark-json")
    assert [one.status for one in found] == ["passed", "passed"], found
    script.merge_benchmarks(sorted(tmp_path.glob("*.benchmark-json")), tmp_path / "benchmarks.json")
    merged = json.loads((tmp_path / "benchmarks.json").read_text())
    assert [one["name"] for one in merged["benchmarks"]] == ["test_five", "test_six"]
    assert merged["machine_info"]
    script.merge_benchmarks([], tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text()) == {"benchmarks": []}


def test_the_files_that_it_names_are_there(script, root):
    assert all((root / name).is_file() for name in script.BENCHMARKS)
    assert all(list((root / name).glob("test_*.py")) for name in script.TESTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(root, tmp_path):
    command = [sys.executable, str(root / ".ci" / "gpu.py"), str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: no GPU: torch")
    assert len(done.stderr.splitlines()) == 1
