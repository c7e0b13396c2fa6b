"""What the benchmark files share."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def timing() -> ModuleType:
    """`gpu_timing.py`: device time by graph replay."""
    return beside("gpu_timing.py")


@pytest.fixture(scope="session")
def side_by_side() -> ModuleType:
    """`side_by_side.py`: contenders timed turn by turn."""
    return beside("side_by_side.py")


@pytest.fixture
def smaller(benchmark: object) -> bool:
    """Whether sizes are to be small: every benchmark once (`--benchmark-disable`), or SCALEFAST_BENCH_SMALL=1."""
    return not getattr(benchmark, "enabled", True) or os.environ.get("SCALEFAST_BENCH_SMALL") == "1"


@pytest.fixture(autouse=True)
def noted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leaves a line of JSON with what a benchmark found in the file SCALEFAST_BENCH_NOTES, if that is set.

    pytest-benchmark writes down what came to its end; a peer that hangs would take all figures before it along.
    """
    place = os.environ.get("SCALEFAST_BENCH_NOTES")
    benchmark = request.getfixturevalue("benchmark") if "benchmark" in request.fixturenames else None
    yield
    if place and benchmark is not None and benchmark.extra_info:
        with open(place, "a") as notes:
            notes.write(json.dumps({"fullname": request.node.nodeid, **benchmark.extra_info}) + "\n")


def beside(name: str) -> ModuleType:
    """A module by its path from here: this folder is no package, and is not on the path either."""
    path = Path(__file__).parent / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
