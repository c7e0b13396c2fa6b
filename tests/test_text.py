"""Numbers in sentences."""

from __future__ import annotations

import pytest

from scalefast._text import counted, size_of


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (0, "video", "0 videos"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "test video", "1 test video"),
        (240000, "video", "240,000 videos"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (2.5 * 2**20, "2.50 MiB"),
        (7.2e13, "67055.23 GiB"),
        (float("inf"), "inf GiB"),
    ],
)
def test_sizes_are_in_the_unit_that_fits(nbytes: float, expected: str) -> None:
    assert size_of(nbytes) == expected
