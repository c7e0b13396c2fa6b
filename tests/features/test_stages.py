"""Where the time of an extraction goes, what it costs, and what is advised."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from scalefast.errors import InputError
from scalefast.features import ExtractSummary
from scalefast.features._stages import StageClock, what_limits


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    moment = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: moment[0])
    return moment


def test_shares_are_of_all_the_time(now: list[float]) -> None:
    """What no stage takes is everything else; an error inside a stage is counted all the same."""
    clock = StageClock()
    with clock("decode"):
        now[0] += 6
    with clock("backbone"):
        now[0] += 2
    with pytest.raises(KeyError), clock("write"):
        now[0] += 1
        raise KeyError
    now[0] += 1
    assert clock.shares() == pytest.approx({"decode": 0.6, "backbone": 0.2, "write": 0.1})
    assert str(clock) == "decode 60% backbone 20% write 10%"


@pytest.mark.parametrize(
    "decode, backbone, write, on_gpu, expected",
    [
        (0.8, 0.1, 0.0, False, "decoding limits: more CPUs (--workers, now 4)"),
        (0.1, 0.8, 0.0, False, "the backbone limits: a GPU"),
        (0.1, 0.8, 0.0, True, "the backbone limits: larger batches (--batch-clips)"),
        (0.6, 0.1, 0.2, False, "writing takes long: a faster disk"),
        (0.4, 0.4, 0.0, False, "no stage takes half of the time"),
    ],
)
def test_what_is_advised(decode: float, backbone: float, write: float, on_gpu: bool, expected: str) -> None:
    shares: Any = {"decode": decode, "backbone": backbone, "write": write}
    assert what_limits(shares, workers=4, on_gpu=on_gpu).startswith(expected)


def test_cost() -> None:
    """50 videos in 90 s at 20 an hour: 10 for 1,000; nothing is said where nothing was decoded."""
    summary = ExtractSummary(
        out=Path("s"), listed=60, ok=50, short=4, bad=5, missing=1, decoded=50, shards=2, kept_shards=1, seconds=90.0,
        videos_per_second=0.556, frames_per_second=142.2, stages={"decode": 0.7, "backbone": 0.2, "write": 0.0},
        limit="decoding limits",
    )  # fmt: skip
    assert (summary.found, summary.used) == (59, 54)
    assert summary.cost_per_thousand(20) == pytest.approx(10)
    assert summary.speed(price_per_hour=20) == (
        "50 videos in 1 min 30 s: 0.56 videos/s, 142 frames/s (decode 70%, backbone 20%, write 0%); "
        "10 per 1,000 videos at 20 an hour; decoding limits"
    )
    assert "an hour" not in summary.speed()
    for price in (-1, float("nan")):
        with pytest.raises(InputError, match=r"price_per_hour = .* expected a number from 0 on"):
            summary.cost_per_thousand(price)
    nothing = dataclasses.replace(summary, decoded=0)
    assert (
        nothing.cost_per_thousand(20) is None
        and nothing.speed(price_per_hour=20) == "nothing was left to decode"
    )
