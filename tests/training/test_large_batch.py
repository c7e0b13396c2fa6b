"""A batch of 16,384 videos: the loss's memory does not grow with the number of pairs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

GRADIENTS_AND_STRIPS = 300
"""MiB that the loss may take: keys, their gradient and one more of that size (16 MiB each), strips of logits (16 MiB),
and what the library behind the products copies. The logits of these 1,024 queries alone would be 1,024 MiB, of all
65,536 they would be 64 GiB."""

TOO_FEW = 30


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by Linux's address space")
def test_the_loss_of_16384_videos_fits_where_its_logits_would_not(run_program: Callable) -> None:
    done = run_program("large_batch.py", GRADIENTS_AND_STRIPS, TOO_FEW)
    assert done.returncode == 0, done.stderr[-3000:]
