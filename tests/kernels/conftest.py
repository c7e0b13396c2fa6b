"""Helpers for the tests of the ops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def agree() -> Callable[..., None]:
    """The library's error rule: twice eager's error in that dtype, plus a share of the truth's largest value."""
    share = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-4, torch.bfloat16: 1e-3}

    def check(got: Tensor, truth: Tensor, eager: Tensor) -> None:
        assert got.shape == truth.shape
        bound = 2 * (eager.double() - truth).abs().max() + share[got.dtype] * truth.abs().max()
        assert (got.double() - truth).abs().max() <= bound

    return check
