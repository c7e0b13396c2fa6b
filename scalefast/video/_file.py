"""One opened video file: its best stream's packets, read once, and its frames, decoded in one pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scalefast.errors import require
from scalefast.video._errors import VideoError
from scalefast.video._packets import PacketTable, until_error
from scalefast.video._random_access import inspector
from scalefast.video._tally import Tally

if TYPE_CHECKING:
    import av

__all__ = ["LostPlaceError", "VideoFile"]


class LostPlaceError(Exception):
    """A second reading of the file does not find the packets of the first."""


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
        self.stated_frames: int = self.stream.frames
        self.stated_duration = _stream_duration(self.stream)
        streams: list[Any] = [self.stream]
        if self.stated_duration is None and self.container.duration:
            self.stated_duration = self.container.duration / self._av.time_base
            streams = list(self.container.streams)  # that duration may be another stream's
        self.unit = float(self.stream.time_base) if self.stream.time_base else None
        self.packets = PacketTable(
            until_error(self.container.demux(*streams), self.failure),
            index=self.stream.index,
            unit=self.unit,
            default=self.frame_seconds,
            inspect=inspector(self.stream, container=self.container.format.name),
        )
        self.discarded = self.packets.discarded
        self.num_packets = len(self.packets) - self.discarded
        self.seconds = self.packets.video.length
        self.end = self.packets.video.end
        self.other_end = self.packets.other.end  # read only where the stated duration may be another stream's

    def frames(self, tally: Tally) -> Iterator[av.VideoFrame]:
        """All frames in decode order (the order in which the decoder gives them, never sorted by time).

        A packet that cannot be decoded is counted in `tally` and passed over. Each call starts anew.
        """
        if self.packets.kept is not None and self._decoder_is_new:
            packets = iter(self.packets.kept)
        else:
            self.container.close()
            self.container, self.stream = self._open()
            demuxed = until_error(self.container.demux(self.stream), self.failure)
            packets = (packet for packet in demuxed if packet.size)
        self._decoder_is_new = False
        yield from self._decode(packets, tally)

    def read(self, begin: int, end: int) -> Iterator[av.Packet]:
        """Packets `begin` to `end` (not included) in decode order, from memory or by a seek in the file.

        Raises:
            LostPlaceError: the seek does not lead to them.
            av.FFmpegError: the file cannot be read there.
        """
        if self.packets.kept is not None:
            yield from self.packets.kept[begin:end]
        else:
            yield from self._read_again(begin, end)

    def _read_again(self, begin: int, end: int) -> Iterator[av.Packet]:
        # Formats differ in whether they seek by the one time or the other; the earlier of both suits all.
        moment = min(self.packets.pts[begin], self.packets.dts[begin])
        self.container.seek(moment, stream=self.stream)
        packets = (packet for packet in self.container.demux(self.stream) if packet.size)
        for packet in islice(packets, begin + 1):
            if self.packets.is_same(begin, packet):
                yield packet
                break
        else:
            raise LostPlaceError
        for place in range(begin + 1, end):
            following = next(packets, None)
            if following is None or not self.packets.is_same(place, following):
                raise LostPlaceError
            yield following

    def _decode(self, packets: Iterator[av.Packet], tally: Tally) -> Iterator[av.VideoFrame]:
        for packet in _then_none(packets):
            try:
                frames = self.decode(packet)
            except self.failure:
                tally.lost_at_end += 1
                continue
            if packet is not None:
                tally.lost_inside += tally.lost_at_end
                tally.lost_at_end = 0
            for frame in frames:
                self.count(frame, tally)
            yield from frames

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Give the decoder one packet, or None for the end; the frames that come out.

        Raises:
            av.FFmpegError: the packet cannot be decoded.
        """
        self._decoder_is_new = False
        frames: list[av.VideoFrame] = self.stream.codec_context.decode(packet)
        return frames

    def count(self, frame: av.VideoFrame, tally: Tally) -> None:
        """Enter a frame in the tally of its pass."""
        tally.add(frame, unit=self.unit, default=self.frame_seconds)


def _then_none(packets: Iterator[av.Packet]) -> Iterator[av.Packet | None]:
    yield from packets
    yield None  # has the decoder give out what it still holds


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
