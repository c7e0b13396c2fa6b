"""How far a long pass over videos is: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

__all__ = ["Progress"]

_LINE_EVERY = 5.0  # seconds between plain lines


class Progress:
    """Counts videos and says videos/s and the time left, on stderr.

    Args:
        total: videos to come.
        label: what is being done, in a word.
        show: whether to print at all.
        stream: where to print; None: stderr.
    """

    def __init__(self, *, total: int, label: str, show: bool = True, stream: TextIO | None = None) -> None:
        self.total = total
        self.label = label
        self.show = show
        self.stream = sys.stderr if stream is None else stream
        self.done = 0
        self.begin = time.monotonic()
        self._said = self.begin
        self._bar = self._open_bar() if show and self.stream.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.show:
            seconds = time.monotonic() - self.begin
            rate = self.done / max(seconds, 1e-9)
            self._say(f"{self._count()} in {_clock(seconds)}, {rate:.1f} videos/s")

    def update(self) -> None:
        """One more video is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        elif self.show and time.monotonic() - self._said >= _LINE_EVERY:
            self._said = time.monotonic()
            self._say(self.line())

    def line(self) -> str:
        """The plain line: `scan: 120 of 300 videos, 34.2 videos/s, 5 s left`."""
        rate = self.done / max(time.monotonic() - self.begin, 1e-9)
        left = _clock((self.total - self.done) / rate) if self.done else "unknown time"
        return f"{self._count()}, {rate:.1f} videos/s, {left} left"

    def _count(self) -> str:
        return f"{self.label}: {self.done} of {self.total} videos"

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def _open_bar(self) -> Any:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            return None
        return tqdm(total=self.total, desc=self.label, unit="video", file=self.stream, dynamic_ncols=True)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
