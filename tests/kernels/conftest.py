"""Helpers for the tests of the ops."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scalefast.kernels.ops import native

SHARE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-4, torch.bfloat16: 1e-3}


@pytest.fixture
def within_error() -> Callable[..., None]:
    """The library's error rule: twice eager's error in that dtype, plus a share of the truth's largest value."""

    def check(got: Tensor, truth: Tensor, eager: Tensor, dtype: torch.dtype | None = None) -> None:
        assert got.shape == truth.shape
        assert torch.isfinite(got).all(), "a value that is not finite"
        if not truth.numel():
            return
        error = (got.double() - truth.double()).abs().max()
        eager_error = (eager.double() - truth.double()).abs().max()
        bound = 2 * eager_error + SHARE[dtype or got.dtype] * truth.double().abs().max()
        assert error <= bound, f"error {error:.3g}, allowed {bound:.3g} (eager {eager_error:.3g})"

    return check


@pytest.fixture(scope="session")
def native_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, by the commands that setup.py runs."""
    if not shutil.which("cmake") or not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no cmake or no C compiler: scalefast installs without the library here")
    folder = tmp_path_factory.mktemp("native")
    for command in (
        ["cmake", "-S", Path(__file__).parents[2], "-B", folder, "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr
    return folder / "libscalefast_native.so"


@pytest.fixture
def native_in_use(native_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs with this library, and fails if it does not load."""
    monkeypatch.setattr(native, "LIBRARY", native_library)
    monkeypatch.setenv("SCALEFAST_NATIVE", "1")
    monkeypatch.delenv("SCALEFAST_BACKEND", raising=False)
