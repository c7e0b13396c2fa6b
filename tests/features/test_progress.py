"""What a long pass over videos says: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import time

import pytest

from scalefast._progress import VideoProgress, clock


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    moment = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment


def test_plain_lines(now: list[float]) -> None:
    """One every ten seconds and one at the end, with speed and the time left."""
    out = io.StringIO()
    with VideoProgress(total=300, label="scan", stream=out) as progress:
        assert progress.line() == "scan: 0 of 300 videos, 0.0 videos/s, unknown time left"
        for _ in range(200):
            now[0] += 0.0625
            progress.advance()
        assert progress.line() == "scan: 200 of 300 videos, 16.0 videos/s, 6 s left"
        for _ in range(100):
            now[0] += 0.0625
            progress.advance()
    lines = out.getvalue().splitlines()
    assert lines == [
        "scan: 160 of 300 videos, 16.0 videos/s, 9 s left",
        "scan: 300 of 300 videos, 16.0 videos/s, in 19 s",
    ]


def test_frames_details_and_what_was_there_before(now: list[float]) -> None:
    """Earlier videos count for the place, not for the speed."""
    out = io.StringIO()
    with VideoProgress(
        total=10, done=4, label="extract", detail=lambda: "decode 80%", stream=out
    ) as progress:
        now[0] += 2
        progress.advance(frames=256)
        assert progress.line() == "extract: 5 of 10 videos, 0.5 videos/s, 128 frames/s, decode 80%, 10 s left"
        assert (progress.seconds, progress.videos_per_second, progress.frames_per_second) == (2, 0.5, 128)


def test_nothing_is_shown_that_is_not_wanted(now: list[float]) -> None:
    """Neither without `show`, nor a last line of nothing, nor one after an error."""
    out = io.StringIO()
    with VideoProgress(total=1, label="scan", show=False, stream=out) as progress:
        progress.advance()
        progress.say("a remark")
    with VideoProgress(total=1, label="scan", stream=out):
        pass
    with pytest.raises(KeyError), VideoProgress(total=2, label="scan", stream=out) as progress:
        progress.advance()
        raise KeyError
    assert out.getvalue() == ""


def test_a_bar_in_a_terminal() -> None:
    """With the speed beside it, and lines above it."""
    out = Terminal()
    with VideoProgress(total=10, done=4, label="extract", detail=lambda: "write 1%", stream=out) as progress:
        progress.advance(frames=256)
        progress.advance(frames=256)
        progress.say("a remark")
    last = out.getvalue().split("\r")[-1]
    assert "extract:" in last and "6/10" in last and "video/s" in last and "frames/s, write 1%" in last
    assert "a remark" in out.getvalue()


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.4, 61, 3599, 3600, 90061)] == [
        "0 s", "59 s", "1 min 01 s", "59 min 59 s", "1 h 00 min", "25 h 01 min",
    ]  # fmt: skip
