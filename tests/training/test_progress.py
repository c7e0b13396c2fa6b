"""What the user sees while a run trains."""

from __future__ import annotations

import io
import sys

import pytest

from scalefast.training import progress
from scalefast.training.progress import Progress

LOSSES = {"loss": 1.25, "mcm_loss": 2.0, "set_loss": 0.5}


class Clock:
    """Seconds that pass only when told to."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_speed_is_that_since_the_last_call(clock: Clock) -> None:
    shown = Progress(shown=False)
    shown.start(step=20, total=100, videos=512, views=8)
    clock.now += 4
    assert shown.advance(30, LOSSES) == {
        "seconds": 4.0, "videos_per_second": 1280.0, "clips_per_second": 20480.0,
    }  # fmt: skip
    clock.now += 1
    assert shown.advance(35, LOSSES)["videos_per_second"] == 2560.0


def test_lines_come_every_ten_seconds_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """From step 19 of 100, a second and a report each: the time left is that of 1 s a step."""
    shown = Progress(shown=True)
    shown.start(step=19, total=100, videos=2, views=3)
    for step in range(20, 101):
        clock.now += 1
        shown.advance(step, LOSSES)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == ("step 20/100  loss 1.2500  mcm 2.0000  set 0.5000  2 videos/s  12 clips/s  1:20 left")
    assert [line.split()[1] for line in lines] == [f"{step}/100" for step in range(20, 101, 10)]
    assert lines[-1].endswith("0:00 left")


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36061, "10:01:01")]
)
def test_time_left_can_be_read(
    clock: Clock, capsys: pytest.CaptureFixture[str], seconds: float, told: str
) -> None:
    shown = Progress(shown=True)
    shown.start(step=0, total=2, videos=1, views=1)
    clock.now += seconds
    shown.advance(1, LOSSES)
    assert capsys.readouterr().err.endswith(f" {told} left\n")


def test_a_terminal_gets_one_bar_and_notes_above_it(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Progress(shown=True)
    shown.start(step=0, total=4, videos=512, views=8)
    shown.say("mind the gap")
    for step in (2, 4):
        clock.now += 1
        shown.advance(step, LOSSES)
    shown.close()
    told = terminal.getvalue()
    assert "4/4" in told
    assert "loss 1.2500, 1,024 videos/s" in told
    assert "mind the gap\n" in told
    assert shown.notes == ["mind the gap"]


def test_not_shown_is_silent_but_keeps_notes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(shown=False)
    shown.say("kept")
    shown.start(step=0, total=1, videos=1, views=1)
    shown.advance(1, LOSSES)
    assert capsys.readouterr() == ("", "")
    assert shown.notes == ["kept"]
