"""Where streams may be entered, read off their packets, whatever these hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast.video._file import VideoFile
from scalefast.video._random_access import Access, inspector
from scalefast.video._selective import read_layout


def test_hidden_pictures_are_noticed(tmp_path: Path, render: Callable[..., Path]) -> None:
    """A VP8 packet whose picture is not shown gives no frame, so that counting packets would shift all frames."""
    path = render(tmp_path / "v.webm", frames=20, codec="libvpx", options={"g": "5"})
    with VideoFile(path) as file:
        assert read_layout(file) is not None
    with av.open(path) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    place = data.index(_payload(path, 7), packets[7])
    data[place] &= ~0x10  # show_frame
    path.write_bytes(data)
    with VideoFile(path) as file:
        assert file.packets.access[7] == Access.ODD and read_layout(file) is None


def _payload(path: Path, number: int) -> bytes:
    with av.open(path) as container:
        return bytes([packet for packet in container.demux(video=0) if packet.size][number])


class _Stream(NamedTuple):
    """What `inspector` asks of a stream."""

    codec_context: object


@settings(max_examples=300)
@given(
    codec=st.sampled_from(["h264", "hevc", "vp8", "vp9", "av1", "mjpeg"]),
    data=st.binary(min_size=1, max_size=60),
    length_size=st.integers(1, 4),
    key=st.booleans(),
)
def test_inspectors_bear_any_packet(codec: str, data: bytes, length_size: int, key: bool) -> None:
    sizes = (
        bytes([1, 0, 0, 0, 0xFC | length_size - 1])
        if codec == "h264"
        else bytes([1, *[0] * 20, length_size - 1])
    )
    stream = _Stream(SimpleNamespace(name=codec, extradata=sizes))
    inspect = inspector(stream, container="matroska,webm")
    packet = av.Packet(data)
    packet.is_keyframe = key
    assert inspect is not None and inspect(packet) in set(Access)
    assert inspector(stream, container="avi") is None


@pytest.mark.parametrize(
    "message, access",
    [
        ("06 06 01 c4 80", Access.START),  # recovery point: count 0, exact
        ("06 06 01 84 80", Access.INNER),  # count 0, not exact
        ("06 06 01 44 80", Access.INNER),  # a count above 0
        ("06 ff 05 02 00 00 06 01 c4 80", Access.START),  # behind another message
        ("06 05 01 c4 80", Access.INNER),  # of another kind
        ("", Access.INNER),
    ],
)
def test_recovery_points(message: str, access: Access) -> None:
    stream = _Stream(SimpleNamespace(name="h264", extradata=bytes([1, 0, 0, 0, 0xFF])))
    inspect = inspector(stream, container="matroska,webm")
    units = [unit for unit in (bytes.fromhex(message), b"\x41\x9a\x00") if unit]
    packet = av.Packet(b"".join(len(unit).to_bytes(4, "big") + unit for unit in units))
    packet.is_keyframe = True
    assert inspect is not None and inspect(packet) == access
