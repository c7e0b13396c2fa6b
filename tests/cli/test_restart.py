"""A training process starts anew without glibc's caches of small blocks: once, as the same process, with its words."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from scalefast import cli
from scalefast.cli import _restart

PROGRAM = """
import ctypes, os, sys
from scalefast.cli._restart import restart_without_small_block_caches

print("begun")
restart_without_small_block_caches()

class Heap(ctypes.Structure):  # struct mallinfo2 of malloc.h
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [libc.malloc(1000) for _ in range(4)]
before = libc.mallinfo2().fordblks
libc.free(blocks[1])
freed = libc.mallinfo2().fordblks - before
print(os.getpid(), os.environ["GLIBC_TUNABLES"], freed, *sys.argv[1:])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
@pytest.mark.parametrize(
    ("given", "found", "begun"),
    [
        (None, "glibc.malloc.tcache_count=0", 2),
        ("glibc.malloc.mxfast=0", "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0", 2),
        ("glibc.malloc.tcache_count=3", "glibc.malloc.tcache_count=3", 1),
    ],
    ids=["unset", "another setting", "set by the user"],
)
def test_the_process_starts_anew_once(given, found, begun):
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    environment |= {} if given is None else {"GLIBC_TUNABLES": given}
    command = [sys.executable, "-c", PROGRAM, "a word", "--option"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    *starts, line = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert starts == ["begun"] * begun
    pid, tunables, freed, *words = line.split(maxsplit=3)
    assert (int(pid), tunables, words) == (process.pid, found, ["a word --option"])
    # A block in a cache is no free block to the others.
    assert (int(freed) >= 1000) == tunables.endswith("tcache_count=0")


@pytest.mark.parametrize(("argv", "restarts"), [(None, True), (["pretrain", "--help"], False)])
def test_only_a_command_line_of_ones_own_starts_anew(argv, restarts, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(cli, "restart_without_small_block_caches", lambda: called.append(True))
    monkeypatch.setattr(sys, "argv", ["scalefast", "pretrain", "--help"])
    assert cli.main(argv) == 0
    assert bool(called) == restarts
    monkeypatch.setattr(sys, "argv", ["scalefast", "--version"])
    assert cli.main() == 0
    assert len(called) == restarts


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(_restart.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    _restart.restart_without_small_block_caches()
    assert "GLIBC_TUNABLES" not in os.environ
