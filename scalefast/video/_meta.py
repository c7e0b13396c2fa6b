"""What is known about a video before its clips are planned."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["VideoMeta"]


@dataclass(frozen=True, kw_only=True)
class VideoMeta:
    """Facts about the best video stream of a file."""

    num_frames: int
    """Frames that decoding gives: counted packets, or counted frames where `exact`."""
    fps: float
    """Average frames per second."""
    height: int
    """Pixels, after rotation."""
    width: int
    """Pixels, after rotation."""
    rotation: int = 0
    """Degrees counter-clockwise (0, 90, 180, 270) by which decoded frames are turned to be shown upright."""
    exact: bool = False
    """Whether `num_frames` comes from decoding the whole stream rather than from counting its packets."""
    stated_frames: int = 0
    """Frame count in the header; 0 where the format states none (matroska, webm)."""
    stated_duration: float | None = None
    """Seconds in the header, of the stream if it says so, else of the container; None where neither does."""
    codec: str = ""
    """FFmpeg's name of the codec."""
    container: str = ""
    """FFmpeg's name of the container format."""
    pixel_format: str = ""
    """FFmpeg's name of the pixel format."""
    note: str = ""
    """Damage that the decoder concealed and flagged; empty when there is none."""

    decoder: str = "pyav"
    """Library that decoded the clips: another than PyAV where that was asked for and gives the same frames."""

    @property
    def duration(self) -> float:
        """Seconds that the decodable frames last at the average rate."""
        return self.num_frames / self.fps
