"""The packets of a stream, from one reading of the file: facts of all, and the packets themselves if they are few."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from scalefast.video._random_access import Access, Inspector
from scalefast.video._tally import Span

if TYPE_CHECKING:
    import av

__all__ = ["PacketTable", "until_error"]

_KEEP_BYTES = 64 << 20  # packets of larger streams are read again from the file where they are needed
_OBJECT_BYTES = 500  # of a packet besides its data: matters for hours of tiny ones


class PacketTable:
    """Packets in decode order, as far as the file can be read. Memory: 25 bytes a packet and at most 64 MiB.

    Args:
        packets: the demultiplexed packets of one or more streams.
        index: the video stream's; of others only the end in time is kept.
        unit: seconds of one unit of the stream's timestamps.
        default: seconds that a packet lasts if it does not say so.
        inspect: judges where decoding may start; None: nowhere but at the beginning.
    """

    def __init__(
        self,
        packets: Iterable[av.Packet],
        *,
        index: int,
        unit: float | None,
        default: float,
        inspect: Inspector | None,
    ) -> None:
        self.kept: list[av.Packet] | None = []
        self.pts, self.dts, self.sizes = array("q"), array("q"), array("q")
        self.access = bytearray()
        self.discarded = 0  # packets that an edit list leaves out
        self.untimed = 0  # packets without a timestamp
        self.keyframes = 0  # as the container marks them
        self.damaged = 0  # packets that the container marks as damaged
        self.video, self.other = Span(), Span()
        held = 0
        for packet in packets:
            if not packet.size:
                continue
            if packet.stream_index != index:
                seconds = float(packet.time_base) if packet.time_base else None
                self.other.add(packet.pts, packet.duration, seconds)
                continue
            self._add(packet, inspect)
            self.video.add(packet.pts, packet.duration, unit, default=default)
            held += packet.size + _OBJECT_BYTES
            if held > _KEEP_BYTES:
                self.kept = None
            if self.kept is not None:
                self.kept.append(packet)

    def __len__(self) -> int:
        return len(self.access)

    def _add(self, packet: av.Packet, inspect: Inspector | None) -> None:
        self.pts.append(0 if packet.pts is None else packet.pts)
        self.dts.append(0 if packet.dts is None else packet.dts)
        self.sizes.append(packet.size)
        self.access.append(Access.ODD if inspect is None else inspect(packet))
        self.discarded += packet.is_discard
        self.untimed += packet.pts is None
        self.keyframes += packet.is_keyframe
        self.damaged += packet.is_corrupt

    def is_same(self, place: int, packet: av.Packet) -> bool:
        """Whether a packet that was read again is the one at this place."""
        return (
            packet.size == self.sizes[place]
            and (packet.pts or 0) == self.pts[place]
            and (packet.dts or 0) == self.dts[place]
        )


def until_error(packets: Iterator[Any], error: type[Exception]) -> Iterator[Any]:
    """Packets up to the end of what can be read; damage to the container ends the file there."""
    try:
        yield from packets
    except error:
        return
