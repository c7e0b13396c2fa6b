"""What all benchmarks share."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def side_by_side() -> ModuleType:
    """The module of that name beside this file, which is no package."""
    return load(Path(__file__).parent / "side_by_side.py")


@pytest.fixture
def smaller(benchmark: object) -> bool:
    """Whether sizes are to be small: every benchmark once (`--benchmark-disable`), or SCALEFAST_BENCH_SMALL=1."""
    return not getattr(benchmark, "enabled", True) or os.environ.get("SCALEFAST_BENCH_SMALL") == "1"


def load(path: Path) -> ModuleType:
    """A module by its file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        module = importlib.import_module(path.stem)
        sys.modules.pop(path.stem)
        return module
