"""What the benchmark files share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def timing() -> ModuleType:
    """`gpu_timing.py`, loaded by its path: this folder is no package, and is not on the path either."""
    spec = importlib.util.spec_from_file_location("gpu_timing", Path(__file__).with_name("gpu_timing.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
