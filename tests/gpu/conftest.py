"""Tests that need a CUDA device (`make gpu`), skipped without one; they use torch, numpy and pytest alone.

`large`: not to be run on a CPU in the GPU's place (`stand_in.py`), for its size or for what it measures.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this folder, so that `-m gpu` finds them."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """The GPU; skips without one."""
    if os.environ.get("SCALEFAST_GPU_STAND_IN") == "1":
        spec = importlib.util.spec_from_file_location("stand_in", HERE / "stand_in.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with module.stand_in() as device:
            yield device
        return
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    yield torch.device("cuda")
