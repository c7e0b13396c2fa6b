"""How far a long pass over videos is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

__all__ = ["VideoProgress", "clock"]

_LINE_SECONDS = 10.0


class VideoProgress:
    """Counts videos, and frames where there are any, and says how fast and how long still. A context manager.

    Args:
        total: videos in the list.
        label: what is being done, in a word.
        done: videos that an earlier run has finished; they count for the bar, not for the speed.
        show: False shows nothing.
        detail: more to say beside the speed, asked for whenever something is shown.
        stream: where to; the standard error if None.
    """

    def __init__(
        self,
        *,
        total: int,
        label: str,
        done: int = 0,
        show: bool = True,
        detail: Callable[[], str] | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total, self._before, self._label = total, done, label
        self._show, self._detail = show, detail
        self._videos = self._frames = 0
        self._begin = self._shown = time.monotonic()
        self._bar: Any = None
        if show and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="video", desc=label, file=self._stream)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begin

    @property
    def videos_per_second(self) -> float:
        """Videos of this run, lost ones included, a second."""
        return self._videos / max(self.seconds, 1e-9)

    @property
    def frames_per_second(self) -> float:
        """Frames of this run, a second."""
        return self._frames / max(self.seconds, 1e-9)

    def advance(self, *, frames: int = 0) -> None:
        """One more video is through, with this many frames (0 for a lost one, or where nobody counts them)."""
        self._videos += 1
        self._frames += frames
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._beside()), refresh=False)
            self._bar.update()
        elif self._show and time.monotonic() - self._shown >= _LINE_SECONDS:
            self._shown = time.monotonic()
            self.say(self.line())

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        if self._show and self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._show:
            print(text, file=self._stream, flush=True)

    def line(self) -> str:
        """The plain line: `scan: 120 of 300 videos, 34.2 videos/s, 5 s left`."""
        speed, seconds = self.videos_per_second, self.seconds
        left = self._total - self._before - self._videos
        if not left:
            end = f"in {clock(seconds)}"
        else:
            end = f"{clock(left / speed)} left" if self._videos else "unknown time left"
        return ", ".join([f"{self._count()}, {speed:.1f} videos/s", *self._beside(), end])

    def _count(self) -> str:
        return f"{self._label}: {self._before + self._videos} of {self._total} videos"

    def _beside(self) -> list[str]:
        frames = [f"{self.frames_per_second:.0f} frames/s"] if self._frames else []
        detail = self._detail() if self._detail is not None else ""
        return [*frames, detail] if detail else frames

    def __enter__(self) -> VideoProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show and kind is None and self._videos:
            self.say(self.line())


def clock(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `25 h 01 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
