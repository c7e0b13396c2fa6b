"""What a decoding pass has met, and the seconds that timestamps cover."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import av

__all__ = ["Span", "Tally"]


@dataclass(kw_only=True)
class Span:
    """Seconds that timestamps cover, in whatever order they come."""

    begin: float | None = None
    last: float | None = None

    @property
    def length(self) -> float | None:
        """Seconds from the first begin to the last end; None without timestamps."""
        return None if self.begin is None or self.last is None else self.last - self.begin

    @property
    def end(self) -> float | None:
        """The last end, counted from 0, or from the first begin where that is negative."""
        return None if self.begin is None or self.last is None else self.last - min(self.begin, 0.0)

    def add(self, pts: int | None, duration: int | None, unit: float | None, *, default: float = 0.0) -> None:
        """Extend by one packet or frame.

        Args:
            pts: its timestamp.
            duration: how long it lasts.
            unit: seconds of one unit of both.
            default: seconds that it lasts if it does not say so.
        """
        if pts is None or not unit:
            return
        begin = pts * unit
        end = begin + (duration * unit if duration else default)
        self.begin = begin if self.begin is None else min(self.begin, begin)
        self.last = end if self.last is None else max(self.last, end)


@dataclass(kw_only=True)
class Tally:
    """What one decoding pass has met so far."""

    frames: int = 0
    """Frames that came out."""
    concealed: int = 0
    """Frames among them that the decoder flags as damaged."""
    lost_inside: int = 0
    """Packets that could not be decoded, with good ones after them."""
    lost_at_end: int = 0
    """Packets that could not be decoded, with no good one after them so far."""
    span: Span = field(default_factory=Span)
    """From the first frame to the end of the last, in time."""
    decoder: Literal["pyav", "torchcodec", "dali"] = "pyav"
    """The library that decodes."""

    def add(self, frame: av.VideoFrame, *, unit: float | None, default: float) -> None:
        """Count a frame; `unit` and `default` as for `Span.add`."""
        self.frames += 1
        self.concealed += bool(frame.is_corrupt)
        self.span.add(frame.pts, frame.duration, unit, default=default)

    def clear(self) -> None:
        """Forget everything, for a pass that starts anew."""
        self.__dict__.update(Tally().__dict__)
