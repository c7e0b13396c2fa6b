"""The machine that `make gpu` runs on: what its tests and benchmarks import is there, and they run as they are written.

Such a machine has torch, triton, numpy and a few packages more, and none of the rest of what scalefast can use.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu shows it")

THERE = (
    "torch", "triton", "numpy", "pytest", "pytest-benchmark", "safetensors", "huggingface_hub", "tqdm",
    "fsspec", "optree",  # torch uses them where they are installed, as here
)  # fmt: skip
"""What such a machine has, with all that these need; no tyro, no av, no DALI, no hypothesis."""
FENCE = """if True:
    import sys
    from importlib.machinery import PathFinder
    class Fenced(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            return None if name.partition(".")[0] in ABSENT else super().find_spec(name, path, target)
    sys.meta_path[sys.meta_path.index(PathFinder)] = Fenced
"""


def absent() -> set[str]:
    """Top-level names of all that is installed here and would not be there."""
    needed, waiting = set(), list(THERE)
    while waiting:
        name = re.split(r"[^\w.-]", waiting.pop())[0].lower().replace("_", "-")
        if name in needed:
            continue
        needed.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            required = importlib.metadata.requires(name) or []
            waiting += [line for line in required if "extra ==" not in line]
    homes = importlib.metadata.packages_distributions()
    there = {top for top, of in homes.items() if needed & {name.lower().replace("_", "-") for name in of}}
    return set(homes) - there - {"scalefast"}


def run(code, root, **environment):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    variables |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    command = [sys.executable, "-P", "-c", f"ABSENT = {absent()!r}\n{FENCE}{code}"]
    return subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True)


def test_what_is_not_there_is_known():
    assert {"tyro", "av", "hypothesis"} <= absent()
    assert not {"torch", "triton", "numpy", "pytest", "_pytest", "pluggy", "safetensors"} & absent()


def test_the_benchmarks_import_there(root):
    """Collected without a GPU: what is skipped for want of a package says so."""
    code = """
if True:
    import pytest
    names = ("gpu_step", "sparse_infonce", "set_attention", "set_embedding", "gpu_cold_start", "gpu_decode")
    files = [f"benchmarks/test_{name}.py" for name in names]
    sys.exit(pytest.main(["-q", "--collect-only", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider", *files]))
"""
    done = run(code, root)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    for name in ("gpu_step", "sparse_infonce", "set_attention", "set_embedding", "gpu_cold_start"):
        assert f"test_{name}.py::" in done.stdout
    assert "DALI is not installed" in done.stdout


@pytest.mark.slow
def test_the_tests_for_a_gpu_run_there(root):
    """With a CPU in the GPU's place: `tests/gpu/stand_in.py` says what that shows."""
    code = """
if True:
    import pytest
    sys.exit(pytest.main(["-q", "-m", "not large", "-p", "no:cacheprovider", "tests/gpu"]))
"""
    done = run(code, root, SCALEFAST_GPU_STAND_IN="1")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "PyAV is not installed" in done.stdout
    passed = int(done.stdout.rpartition(" passed")[0].split()[-1])
    assert passed >= 20, done.stdout[-500:]
