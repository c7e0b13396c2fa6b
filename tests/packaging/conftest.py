"""A copy of what the build reads: nothing is left in the checkout, and no old build gets into a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "setup.py",
    "pyproject.toml",
    "CMakeLists.txt",
    "MANIFEST.in",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A copy of the sources, with the link from scalefast/kernels/ops to kernels/ kept as a link."""
    tree = tmp_path / "a folder with spaces"
    tree.mkdir()
    for name in SOURCES:
        shutil.copy2(ROOT / name, tree)
    for name in ("scalefast", "kernels"):
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
    return tree


@pytest.fixture
def pip(tmp_path: Path) -> Callable[..., str]:
    """Runs pip from a folder that is not the tree, offline, and returns what it printed."""

    def run(*words: str | Path, **environment: str) -> str:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment}
        command = [sys.executable, "-m", "pip", *map(str, words)]
        done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
