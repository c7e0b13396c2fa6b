"""How long until something happens: importing scalefast once torch is there, and a first training step from nothing?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

IMPORT = """
import torch, time
begin = time.perf_counter()
import scalefast
scalefast.SCALE
print(time.perf_counter() - begin)
"""
FIRST_STEP = """
import time
begin = time.perf_counter()
import torch, scalefast
task = scalefast.SCALEPretraining(scalefast.SCALE(768))
task(torch.randn(64, 2, 8, 768), torch.rand(64, 2, 8, 7)).loss.backward()
print(time.perf_counter() - begin)
"""


@pytest.mark.parametrize(
    ("what", "code"),
    [("import, after torch", IMPORT), ("import and first step", FIRST_STEP)],
    ids=["import", "step"],
)
def test_startup(benchmark, what, code):
    """A fresh process each round; the time is its own, without the interpreter's start."""
    seconds = []

    def start():
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seconds.append(float(done.stdout))

    benchmark.pedantic(start, rounds=5 if benchmark.enabled else 1)
    benchmark.extra_info.update(what=what, seconds={"ours": min(seconds)}, load=os.getloadavg()[0])
