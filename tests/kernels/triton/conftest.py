"""Tests of the Triton kernels: on a GPU where there is one, else in Triton's interpreter on CPU tensors.

Without either nothing is collected here: `tests/kernels/test_triton_interpreter.py` runs this folder in processes of
their own, since the interpreter must be asked for before a kernel is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

NATIVE = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and os.environ.get("SCALEFAST_BACKEND") == "triton"
collect_ignore_glob = [] if NATIVE or INTERPRETED else ["test_*.py"]
SHARE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-4, torch.bfloat16: 1e-3}


@pytest.fixture
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if NATIVE else "cpu")


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
