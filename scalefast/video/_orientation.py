"""How a decoded frame is turned to be shown upright, from the display matrix that cameras write."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av
    from av.sidedata.sidedata import SideData

__all__ = ["Orientation", "frame_orientation"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """One of the eight ways to turn and mirror a picture: transposed first, then mirrored."""

    transpose: bool = False
    """Rows become columns."""
    mirror_x: bool = False
    """Then left and right change places."""
    mirror_y: bool = False
    """Then top and bottom change places."""

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise; of a mirrored picture, those after mirroring left to right."""
        if self.transpose:
            return 90 if self.mirror_y else 270
        return 180 if self.mirror_y else 0

    @property
    def is_mirrored(self) -> bool:
        """Whether no rotation alone does it."""
        return self.transpose != (self.mirror_x != self.mirror_y)

    def upright_size(self, *, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the upright frame, from those of the decoded one."""
        return (width, height) if self.transpose else (height, width)

    def to_decoded(self, box: Box, *, height: float, width: float) -> Box:
        """The box (top, left, height, width) of an upright frame of that size, in the decoded frame."""
        top, left, tall, wide = box
        if self.mirror_x:
            left = width - left - wide
        if self.mirror_y:
            top = height - top - tall
        return (left, top, wide, tall) if self.transpose else (top, left, tall, wide)

    def to_upright(self, box: Box, *, height: float, width: float) -> Box:
        """Inverse of `to_decoded`; the size is that of the upright frame in both."""
        left, top, wide, tall = box if self.transpose else (box[1], box[0], box[3], box[2])
        if self.mirror_x:
            left = width - left - wide
        if self.mirror_y:
            top = height - top - tall
        return (top, left, tall, wide)

    def turn(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A decoded picture [H, W, 3], upright."""
        picture = picture.swapaxes(0, 1) if self.transpose else picture
        picture = picture[:, ::-1] if self.mirror_x else picture
        return picture[::-1] if self.mirror_y else picture

    def filters(self) -> list[tuple[str, str | None]]:
        """FFmpeg filters (name, arguments) that turn a decoded picture upright."""
        return [
            *(
                [("transpose", "cclock_flip")] if self.transpose else []
            ),  # the plain transpose, by its FFmpeg name
            *([("hflip", None)] if self.mirror_x else []),
            *([("vflip", None)] if self.mirror_y else []),
        ]


def frame_orientation(frame: av.VideoFrame) -> Orientation:
    """Orientation from a frame's display matrix, to the nearest quarter turn; upright without one.

    The matrix (a b u, c d v, x y w) sends (x, y) to (a x + c y, b x + d y).
    """
    from av.sidedata.sidedata import SideDataContainer

    # Not frame.side_data: frame and container would keep each other, and the picture, until the next garbage
    # collection (PyAV 18): hundreds of pictures. The container is a mapping whose iterator gives values.
    items: Callable[[av.VideoFrame], Iterable[SideData]] = cast("Any", SideDataContainer)
    for item in items(frame):
        if item.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("=5i", bytes(item)[:20])
            if abs(b) > abs(a):
                return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
            return Orientation(mirror_x=a < 0, mirror_y=d < 0)
    return Orientation()
