"""Freed memory stays with the process once it was asked for, and does not without."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys
from pathlib import Path
from scalefast.training.memory import keep_freed_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
before = resident_mb()
block = ctypes.CDLL(None).malloc
block.restype, block.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
address = block(256 << 20)
ctypes.memset(address, 1, 256 << 20)
held = resident_mb()
ctypes.CDLL(None).free(ctypes.c_void_p(address))
print(kept, held - before, resident_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory(keep):
    command = [sys.executable, "-c", PROGRAM, "keep" if keep else "leave"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, held, left = done.stdout.split()
    assert kept == str(keep)
    assert int(held) >= 250
    assert int(left) >= 250 if keep else int(left) < 50


def test_other_c_libraries_are_left_alone(monkeypatch):
    from scalefast.training import memory

    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed_memory() is False
