"""Videos: lists of them, what is in a file, which clips to take, decoding, and the scan that finds bad files.

Needs the extra `video` (PyAV) once a file is opened; lists, recipes and sampling work without it.
"""

from scalefast.video._decode import decode_clips
from scalefast.video._entries import VideoEntry, VideoList
from scalefast.video._errors import ShortDecodeError, VideoError
from scalefast.video._ledger import LedgerRow, ScanSummary, read_ledger, write_ledger
from scalefast.video._load import LoadedClips, load_clips
from scalefast.video._meta import VideoMeta
from scalefast.video._pool import IsolatedPool, Outcome, available_cpus, isolated_map
from scalefast.video._positions import clip_positions, normalize_positions
from scalefast.video._probe import probe
from scalefast.video._recipe import ClipRecipe, test_recipe, train_recipe
from scalefast.video._sampling import ClipSpec, sample_clips
from scalefast.video._scan import scan_videos

__all__ = [
    "ClipRecipe",
    "ClipSpec",
    "IsolatedPool",
    "LedgerRow",
    "LoadedClips",
    "Outcome",
    "ScanSummary",
    "ShortDecodeError",
    "VideoEntry",
    "VideoError",
    "VideoList",
    "VideoMeta",
    "available_cpus",
    "clip_positions",
    "decode_clips",
    "isolated_map",
    "load_clips",
    "normalize_positions",
    "probe",
    "read_ledger",
    "sample_clips",
    "scan_videos",
    "test_recipe",
    "train_recipe",
    "write_ledger",
]
