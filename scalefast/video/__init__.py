"""Videos: lists of them, what is in a file, which clips to take, decoding, and the scan that finds bad files.

Needs the extra `video` (PyAV) once a file is opened; lists, recipes and sampling work without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scalefast.video._augmentation import (
    Augmentation,
    AugmentationRecipe,
    byol_augmentation,
    cvrl_augmentation,
    draw_augmentations,
)
from scalefast.video._dali_clips import DeviceClips, load_clips_by_dali
from scalefast.video._decode import Decoder, decode_clips
from scalefast.video._entries import VideoEntry, VideoList
from scalefast.video._errors import ShortDecodeError, VideoError
from scalefast.video._intervals import draw_interval, sample_clip_pair
from scalefast.video._ledger import LedgerRow, ScanSummary, read_ledger, write_ledger
from scalefast.video._load import LoadedClips, load_clips
from scalefast.video._meta import VideoMeta
from scalefast.video._pool import IsolatedPool, Outcome, available_cpus, isolated_map
from scalefast.video._positions import clip_positions, normalize_positions
from scalefast.video._probe import probe
from scalefast.video._recipe import ClipRecipe, test_recipe, train_recipe
from scalefast.video._sampling import ClipSpec, sample_clips
from scalefast.video._scan import scan_videos

if TYPE_CHECKING:
    from scalefast.video._augment import augment

__all__ = [
    "Augmentation",
    "AugmentationRecipe",
    "ClipRecipe",
    "ClipSpec",
    "Decoder",
    "DeviceClips",
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
    "augment",
    "available_cpus",
    "byol_augmentation",
    "clip_positions",
    "cvrl_augmentation",
    "decode_clips",
    "draw_augmentations",
    "draw_interval",
    "isolated_map",
    "load_clips",
    "load_clips_by_dali",
    "normalize_positions",
    "probe",
    "read_ledger",
    "sample_clip_pair",
    "sample_clips",
    "scan_videos",
    "test_recipe",
    "train_recipe",
    "write_ledger",
]


def __getattr__(name: str) -> Any:
    # torch is imported with what needs it: processes that decode do without, and start in a tenth of the time.
    if name == "augment":
        from scalefast.video._augment import augment

        return augment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
