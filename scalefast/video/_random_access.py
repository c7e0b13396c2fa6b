"""Where a stream may be entered without changing a pixel, read off its compressed packets.

A container marks "keyframes", but a decoder that starts at one gives the frames of a full pass only if nothing
shown later refers to what came before. That is so, by the codecs' own rules,

- H.264 (ITU-T H.264): at an IDR picture, and at a picture whose recovery point message says that decoding is exact
  from it on (`recovery_frame_cnt` 0, `exact_match_flag` 1), as x264 writes for open GOPs;
- HEVC (ITU-T H.265): at an IDR or CRA picture; pictures shown before a CRA picture may refer further back, so they
  belong to the entry before it;
- VP8, VP9, AV1: at a keyframe, which replaces all reference pictures;
- MJPEG: anywhere.

Frames are told apart by their packets, so each packet must give one frame. Packets that break this (VP8's and VP9's
hidden pictures outside superframes, HEVC pictures that a decoder drops after a splice) are `ODD`: such a
stream is decoded from its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

__all__ = ["Access", "Inspector", "inspector"]


class Access(IntEnum):
    """What a packet means to somebody who wants to start there."""

    INNER = 0
    """It needs packets before it."""
    START = 1
    """Decoding may start here: this and all frames shown later are those of a full pass."""
    ODD = 2
    """It does not give exactly one frame, or changes what later packets give."""


Inspector = Callable[["av.Packet"], Access]

_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # one packet a picture, with its own timestamp


def inspector(stream: av.VideoStream, *, container: str) -> Inspector | None:
    """What judges the packets of a stream; None where it can only be decoded from its start.

    Args:
        stream: the video stream.
        container: FFmpeg's name of the container format.
    """
    if container not in _CONTAINERS:
        return None
    name, extradata = stream.codec_context.name, stream.codec_context.extradata or b""
    if (
        name == "h264" and len(extradata) > 4 and extradata[0] == 1
    ):  # 1: lengths before the units, no start codes
        return _H264(length_size=(extradata[4] & 3) + 1)
    if name == "hevc" and len(extradata) > 21 and extradata[0] == 1:
        return _HEVC(length_size=(extradata[21] & 3) + 1)
    return _BY_NAME.get(name)


def _units(data: memoryview, length_size: int) -> Iterator[memoryview]:
    """The NAL units of a packet."""
    place = 0
    while place + length_size < len(data):
        size = int.from_bytes(data[place : place + length_size], "big")
        place += length_size
        yield data[place : place + size]
        place += size


class _H264:
    SLICE, IDR, SEI = 1, 5, 6

    def __init__(self, *, length_size: int) -> None:
        self.length_size = length_size

    def __call__(self, packet: av.Packet) -> Access:
        if not packet.is_keyframe:
            return Access.INNER
        exact = False
        for unit in _units(memoryview(packet), self.length_size):
            kind = unit[0] & 31 if len(unit) else 0
            if kind == self.SEI:
                exact = exact or _is_exact_recovery(unit)
            if kind in (self.SLICE, self.IDR):
                return Access.START if exact or kind == self.IDR else Access.INNER
        return Access.INNER


def _is_exact_recovery(unit: memoryview) -> bool:
    """Whether a supplemental message says: exact from this picture on."""
    place = 1
    while place + 2 < len(unit):
        numbers = []  # type and size, each a sum of bytes of which all but the last are 255
        for _ in range(2):
            number = 0
            while place < len(unit) - 1 and unit[place] == 255:
                number += 255
                place += 1
            numbers.append(number + unit[place])
            place += 1
            if place >= len(unit):
                return False
        kind, size = numbers
        if kind == 6:
            return unit[place] & 0xC0 == 0xC0  # a count of 0 is the single bit 1; then the flag
        place += size
    return False


class _HEVC:
    STARTS = frozenset({19, 20, 21})  # IDR with and without leading pictures, CRA
    SPLICES = frozenset(
        {16, 17, 18, 36, 37}
    )  # broken links, ends of sequence: pictures after them are dropped

    def __init__(self, *, length_size: int) -> None:
        self.length_size = length_size

    def __call__(self, packet: av.Packet) -> Access:
        kinds = {unit[0] >> 1 & 63 for unit in _units(memoryview(packet), self.length_size) if len(unit)}
        if kinds & self.SPLICES:
            return Access.ODD
        return Access.START if kinds & self.STARTS else Access.INNER


def _intra(packet: av.Packet) -> Access:
    return Access.START


def _vp8(packet: av.Packet) -> Access:
    head = memoryview(packet)[0]
    if not head >> 4 & 1:  # show_frame
        return Access.ODD
    return Access.INNER if head & 1 else Access.START


def _vp9(packet: av.Packet) -> Access:
    data = memoryview(packet)
    if _is_superframe(data):  # exactly one of its pictures is shown
        return Access.START if packet.is_keyframe else Access.INNER
    shift = 3 if data[0] >> 4 & 3 == 3 else 4  # profile 3 has one reserved bit more
    existing, shown = data[0] >> shift - 1 & 1, data[0] >> shift - 3 & 1
    if not existing and not shown:
        return Access.ODD
    return Access.START if packet.is_keyframe and not existing else Access.INNER


def _is_superframe(data: memoryview) -> bool:
    """Whether a VP9 packet ends with an index of several pictures: a marker byte before and behind their sizes."""
    marker = data[-1]
    size = 2 + ((marker >> 3 & 3) + 1) * ((marker & 7) + 1)
    return marker & 0xE0 == 0xC0 and len(data) >= size and data[-size] == marker


def _av1(packet: av.Packet) -> Access:
    # A packet is a temporal unit, which shows one picture; a decoder refuses to start at any but a keyframe.
    return Access.START if packet.is_keyframe else Access.INNER


_BY_NAME: dict[str, Inspector] = {
    "mjpeg": _intra,
    "vp8": _vp8,
    "libvpx": _vp8,
    "vp9": _vp9,
    "libvpx-vp9": _vp9,
    "av1": _av1,
    "libdav1d": _av1,
}
