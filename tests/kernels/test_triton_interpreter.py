"""The kernels' own tests (`tests/kernels/triton`) in Triton's interpreter, a process a file.

The interpreter must be asked for before a kernel is imported, so they cannot run in this process. On a machine with a
GPU the same files run natively where they lie, and this one has nothing to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent / "triton"
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in FOLDER.glob("test_*.py"))

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels' tests run on the GPU instead")


def test_there_are_files():
    assert len(FILES) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_in_the_interpreter(name, tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "SCALEFAST_BACKEND": "triton",
        "OMP_NUM_THREADS": "1",
        "TRITON_CACHE_DIR": str(tmp_path),
    }
    for key in [key for key in environment if key.startswith("PYTEST_")]:
        del environment[key]  # those of the run around this one
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / name)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    print(done.stdout.splitlines()[-1])
