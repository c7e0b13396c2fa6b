"""Tests of the Triton kernels: on a GPU where there is one, else in Triton's interpreter on CPU tensors.

Without either nothing is collected here: `tests/kernels/test_triton_interpreter.py` runs this folder in processes of
their own, since the interpreter must be asked for before a kernel is imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

NATIVE = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and os.environ.get("SCALEFAST_BACKEND") == "triton"
collect_ignore_glob = [] if NATIVE or INTERPRETED else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """SCALEFAST_TEST_PART=2/3 keeps the second third of the tests: `.ci/gpu.py` runs the parts side by side."""
    if asked := os.environ.get("SCALEFAST_TEST_PART"):
        part, parts = map(int, asked.split("/"))
        items[:] = items[len(items) * (part - 1) // parts : len(items) * part // parts]


@pytest.fixture
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if NATIVE else "cpu")


def beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def guards() -> ModuleType:
    """`guards.py`: what kernels touch in the interpreter, held to the memory given to them."""
    return beside("guards")


@pytest.fixture(autouse=True)
def guarded(guards: ModuleType) -> Iterator[None]:
    """In the interpreter no kernel reads or writes beside its tensors; on a GPU `compute-sanitizer` would see it."""
    with contextlib.nullcontext() if NATIVE else guards.guarded():
        yield


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest) -> ModuleType:
    """Inputs and checks that the files of one op share: `set_attention_cases.py` for `test_set_attention*.py`."""
    name = request.path.stem.removeprefix("test_")
    (path,) = (
        p for p in Path(__file__).parent.glob("*_cases.py") if name.startswith(p.stem[: -len("_cases")])
    )
    return beside(path.stem)


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(params=["fused", "chunked"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """The contrastive loss in either form: fp32 is chunked unless TF32 is allowed; the interpreter has fp32 in both."""
    with matmul_precision("high" if request.param == "fused" else "highest"):
        yield request.param


@pytest.fixture
def tf32() -> Iterator[None]:
    with matmul_precision("high"):
        yield


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written holds NaN (or, for integers, a number that is no index)."""

    def poisoned(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def make(*args: object, **kwargs: object) -> Tensor:
            out = original(*args, **kwargs)
            if out.is_floating_point():
                return out.fill_(float("nan"))
            return out.fill_(-(1 << 24)) if out.dtype in (torch.int32, torch.int64) else out

        return make

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poisoned(getattr(torch, name)))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
