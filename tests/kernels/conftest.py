"""Helpers for the tests of the ops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

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
