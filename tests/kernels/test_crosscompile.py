"""Every kernel that ships compiles for an H100 within its budget, on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

from scalefast.cli import main  # noqa: E402
from scalefast.kernels import crosscompile  # noqa: E402
from scalefast.kernels.ops import compilation  # noqa: E402


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that `scalefast precompile` has filled for sm_90, and what it printed."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, run(["-m", "scalefast", "precompile", "--arch", "sm_90", "--cache", str(folder)])


def run(arguments, **environment):
    variables = {**os.environ, **environment}
    variables.pop("TRITON_INTERPRET", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


def files(folder):
    return sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.slow
def test_all_within_budget_and_nothing_compiled_twice(cache):
    folder, precompiled = cache
    assert precompiled.returncode == 0, precompiled.stderr
    assert "kernels for sm_90 in" in precompiled.stdout
    before = files(folder)
    assert any(path.suffix == ".cubin" for path in before)
    done = run(["-m", "scalefast.kernels.crosscompile", "--arch", "sm_90"], TRITON_CACHE_DIR=str(folder))
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("all within budget")
    assert files(folder) == before, "the second process compiled something anew"


def test_every_op_ships_something_and_names_differ():
    shipped = list(crosscompile.shipped_kernels())
    folders = {folder for folder, _ in shipped}
    assert {"set_embedding", "set_attention", "sparse_infonce", "view_sampling"} <= folders
    names = [one.name for _, one in shipped]
    assert len(names) == len(set(names))


def test_a_budget_that_is_exceeded_is_said():
    _, shipped = next(iter(crosscompile.shipped_kernels(["sparse_infonce"])))
    tight = compilation.Shipped(**{**vars(shipped), "max_registers": 1, "max_shared": -1})
    found = compilation.compile_shipped(tight, arch="sm_90")
    assert len(found.failures) == 2
    assert found.failures[0] == f"{found.registers} registers, budget 1"


def test_bad_input_is_named(monkeypatch, capsys, tmp_path):
    assert main(["precompile", "--arch", "sm_42"]) == 2
    assert "sm_80, sm_90, sm_100, gfx942; got 'sm_42'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["precompile", "--cache", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert main(["precompile"]) == 2
    assert "TRITON_INTERPRET=1: unset it" in capsys.readouterr().err
