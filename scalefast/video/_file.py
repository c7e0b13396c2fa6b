"""One opened video file: its best stream's packets, read once, and its frames, decoded in one pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scalefast.errors import require
from scalefast.video._errors import VideoError

if TYPE_CHECKING:
    import av

__all__ = ["Tally", "VideoFile"]

_KEEP_BYTES = 256 << 20  # packets of larger files are read a second time rather than kept


@dataclass(kw_only=True)
class _Span:
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

    def add(
        self, pts: int | None, duration: int | None, unit: Fraction | None, *, default: float = 0.0
    ) -> None:
        """Extend by one packet or frame; `default` is how long it lasts if it does not say so."""
        if pts is None or unit is None:
            return
        begin = float(pts * unit)
        end = begin + (float(duration * unit) if duration else default)
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
    span: _Span = field(default_factory=_Span)
    """From the first frame to the end of the last, in time."""

    def clear(self) -> None:
        """Forget everything, for a pass that starts anew."""
        self.__dict__.update(Tally().__dict__)


class VideoFile:
    """A file's best video stream, as FFmpeg chooses it.

    Opening reads the header and then every packet, since headers promise frames that are not there (and
    matroska states no count at all).

    Args:
        path: the file.
        threads: decoder threads; 1 in a worker process, 0 lets FFmpeg use all CPUs.
        fast: leave out the decoders' smoothing of block edges, for passes in which only the count of frames
            matters.

    Raises:
        VideoError: missing, unreadable, or without a video stream.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1, fast: bool = False) -> None:
        self.path = os.fspath(path)
        self.threads = threads
        self.fast = fast
        self._av = require("av", extra="video", needed_for="decoding videos")
        self.container, self.stream = self._open()
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.frame_seconds = float(1 / rate) if rate else 0.0
        self.failure: type[Exception] = self._av.FFmpegError
        self._decoder_is_new = True
        try:
            self._read_packets()
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    def _open(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        path = self.path
        if not os.path.exists(path):
            raise VideoError(path, reason="missing", detail="no such file")
        if not os.path.isfile(path):
            raise VideoError(path, reason="unreadable", detail="not a regular file")
        try:
            # The protocol is named, for a file called "http:a.mp4" is a file.
            container = self._av.open(f"file:{os.path.abspath(path)}", metadata_errors="replace")
        except (self._av.FFmpegError, OSError, ValueError) as error:
            empty = os.path.getsize(path) == 0
            detail = "the file is empty" if empty else f"FFmpeg cannot open it ({_words(error)})"
            raise VideoError(path, reason="unreadable", detail=detail) from error
        stream = container.streams.best("video")
        if stream is None or _is_cover(stream):
            kinds = sorted({other.type for other in container.streams} - {"video"})
            container.close()
            detail = f"it holds {', '.join(kinds)} only" if kinds else "it holds no stream"
            raise VideoError(path, reason="no video", detail=detail)
        context = stream.codec_context
        context.thread_count = self.threads
        context.thread_type = "NONE" if self.threads == 1 else "AUTO"
        if self.fast:
            context.options = {"skip_loop_filter": "all"}
        return container, stream

    def _read_packets(self) -> None:
        """Demultiplex the whole file: count, times, and the packets themselves unless they are too many."""
        self.packets: list[av.Packet] | None = []
        self.num_packets = 0
        self.discarded = 0  # packets that an edit list leaves out
        self.stated_frames: int = self.stream.frames
        self.stated_duration = _stream_duration(self.stream)
        streams: list[Any] = [self.stream]
        if self.stated_duration is None and self.container.duration:
            self.stated_duration = self.container.duration / self._av.time_base
            streams = list(self.container.streams)  # that duration may be another stream's
        video, other = _Span(), _Span()
        size = 0
        for packet in _until_error(self.container.demux(*streams), self._av.FFmpegError):
            if not packet.size:
                continue
            if packet.stream_index != self.stream.index:
                other.add(packet.pts, packet.duration, packet.time_base)
                continue
            video.add(packet.pts, packet.duration, packet.time_base, default=self.frame_seconds)
            self.num_packets += not packet.is_discard
            self.discarded += packet.is_discard
            size += packet.size
            if size > _KEEP_BYTES:
                self.packets = None
            if self.packets is not None:
                self.packets.append(packet)
        self.seconds = video.length
        self.end = video.end
        self.other_end = other.end  # read only where the stated duration may be another stream's

    def frames(self, tally: Tally) -> Iterator[av.VideoFrame]:
        """All frames in decode order (the order in which the decoder gives them, never sorted by time).

        A packet that cannot be decoded is counted in `tally` and passed over. Each call starts anew.
        """
        if self.packets is not None and self._decoder_is_new:
            packets = iter(self.packets)
        else:
            self.container.close()
            self.container, self.stream = self._open()
            demuxed = _until_error(self.container.demux(self.stream), self._av.FFmpegError)
            packets = (packet for packet in demuxed if packet.size)
        self._decoder_is_new = False
        yield from self._decode(packets, tally)

    def _decode(self, packets: Iterator[av.Packet], tally: Tally) -> Iterator[av.VideoFrame]:
        for packet in _then_none(packets):
            try:
                frames = self.decode(packet, tally)
            except self._av.FFmpegError:
                tally.lost_at_end += 1
                continue
            if packet is not None:
                tally.lost_inside += tally.lost_at_end
                tally.lost_at_end = 0
            yield from frames

    def decode(self, packet: av.Packet | None, tally: Tally) -> list[av.VideoFrame]:
        """Give the decoder one packet, or None for the end, and count the frames that come out.

        Raises:
            av.FFmpegError: the packet cannot be decoded.
        """
        self._decoder_is_new = False
        frames: list[av.VideoFrame] = self.stream.codec_context.decode(packet)
        for frame in frames:
            tally.frames += 1
            tally.concealed += bool(frame.is_corrupt)
            tally.span.add(frame.pts, frame.duration, self.stream.time_base, default=self.frame_seconds)
        return frames


def _then_none(packets: Iterator[av.Packet]) -> Iterator[av.Packet | None]:
    yield from packets
    yield None  # has the decoder give out what it still holds


def _until_error(packets: Iterator[av.Packet], error: type[Exception]) -> Iterator[av.Packet]:
    """Packets up to the end of what can be read; damage to the container ends the file there."""
    try:
        yield from packets
    except error:
        return


def _stream_duration(stream: av.VideoStream) -> float | None:
    """Seconds that the header states for the stream itself; matroska's writers leave them in a tag."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    clock = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", stream.metadata.get("DURATION", "").strip())
    if clock is None:
        return None
    return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether the stream is the cover picture of an audio file."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
