"""How far extraction has come: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

__all__ = ["ExtractionProgress"]

_LINE_SECONDS = 10.0


class ExtractionProgress:
    """Shows videos done, videos/s, frames/s and the time left. Use it as a context manager.

    Args:
        total: videos in the list.
        done: videos of shards that were finished before; they count for the bar, not for the speed.
        show: False shows nothing.
        stream: where to; the standard error if None.
    """

    def __init__(self, *, total: int, done: int, show: bool, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = total
        self._before = done
        self._videos = 0
        self._frames = 0
        self._begin = self._shown = time.monotonic()
        self._show = show
        self._bar: Any = None
        if show and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="video", desc="extract", file=self._stream)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begin

    @property
    def frames_per_second(self) -> float:
        """Decoded frames that went into clips, a second."""
        return self._frames / max(self.seconds, 1e-9)

    @property
    def videos_per_second(self) -> float:
        """Videos, lost ones included, a second."""
        return self._videos / max(self.seconds, 1e-9)

    def advance(self, *, frames: int) -> None:
        """One more video is through, with this many frames in its clips (0 for a lost one)."""
        self._videos += 1
        self._frames += frames
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self.frames_per_second:.0f} frames/s", refresh=False)
            self._bar.update()
        elif self._show and time.monotonic() - self._shown >= _LINE_SECONDS:
            self._shown = time.monotonic()
            self.say(self._line())

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        if self._show and self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._show:
            print(text, file=self._stream, flush=True)

    def _line(self) -> str:
        done = self._before + self._videos
        left = int((self._total - done) / max(self.videos_per_second, 1e-9))
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        speed = f"{self.videos_per_second:.2f} videos/s, {self.frames_per_second:.0f} frames/s"
        return f"extract: {done} of {self._total} videos, {speed}, {clock} left"

    def __enter__(self) -> ExtractionProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show and kind is None and self._videos:
            self.say(self._line())
