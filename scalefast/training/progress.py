"""What a run tells the user while it trains: a bar on a terminal, plain lines elsewhere, nothing in
other processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

__all__ = ["Progress"]

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts steps, measures speed and shows both.

    Args:
        shown: whether to print anything at all; notes are kept in any case.
    """

    def __init__(self, *, shown: bool) -> None:
        self.notes: list[str] = []
        self._shown = shown
        self._bar = None
        self._total = self._step = self._videos = self._clips = 0
        self._began = self._last = self._printed = 0.0
        self._first_step = 0

    def say(self, note: str) -> None:
        """Keep a remark, and show it."""
        self.notes.append(note)
        if self._bar is not None:
            self._bar.write(note, file=sys.stderr)
        elif self._shown:
            print(note, file=sys.stderr, flush=True)

    def start(self, *, step: int, total: int, videos: int, views: int) -> None:
        """Begin counting: `videos` a step with two sets of `views` clips each."""
        self._step = self._first_step = step
        self._total, self._videos, self._clips = total, videos, 2 * views * videos
        self._began = self._last = time.perf_counter()
        if self._shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=step, desc="pretrain", unit="step", file=sys.stderr)

    def advance(self, step: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Show that `step` steps are complete; returns the speed since the last call, for the log."""
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._last, 1e-9)
        speed = {
            "seconds": round(now - self._began, 3),
            "videos_per_second": round(rate * self._videos, 2),
            "clips_per_second": round(rate * self._clips, 2),
        }
        if self._bar is not None:
            told = f"loss {losses['loss']:.4f}, {speed['videos_per_second']:,.0f} videos/s"
            self._bar.set_postfix_str(told, refresh=False)
            self._bar.update(step - self._step)
        elif self._shown and (now - self._printed >= _SECONDS_BETWEEN_LINES or step == self._total):
            print(self._line(step, losses, speed, now), file=sys.stderr, flush=True)
            self._printed = now
        self._step, self._last = step, now
        return speed

    def close(self) -> None:
        """Leave the terminal as a finished bar leaves it."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, step: int, losses: Mapping[str, float], speed: Mapping[str, float], now: float) -> str:
        left = (self._total - step) * (now - self._began) / max(step - self._first_step, 1)
        time = f"time {losses['time_loss']:.4f}  " if "time_loss" in losses else ""
        return (
            f"step {step}/{self._total}  loss {losses['loss']:.4f}  mcm {losses['mcm_loss']:.4f}  "
            f"set {losses['set_loss']:.4f}  {time}{speed['videos_per_second']:,.0f} videos/s  "
            f"{speed['clips_per_second']:,.0f} clips/s  {_clock(left)} left"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
