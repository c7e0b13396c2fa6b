"""One extraction as plain data: what to decode, what runs on it, what goes into which shard.

Whoever does the work (worker processes of this machine, ranks, Ray), the shards follow from this alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from scalefast._version import __version__
from scalefast.errors import InputError
from scalefast.features._decode import Decoded, DecodeJob, Item, decode_by_dali, decode_in_workers
from scalefast.features._inputs import check_ids, check_provenance
from scalefast.features._shard import ShardContent, dtype_name
from scalefast.features._shard_builder import ShardBuilder, make_labels
from scalefast.features._stages import StageClock

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.video import ClipRecipe, VideoEntry, VideoList
    from scalefast.video._positions import PositionMode

__all__ = ["DecoderName", "Extraction", "built_shards", "default_shard_videos", "item_of"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)

DecoderName = Literal["auto", "pyav", "torchcodec", "dali"]

Told = Callable[["VideoEntry", Decoded], None]
"""Is told what became of each video, in the order of the list."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What is extracted, checked. The fields are the arguments of `extract`.

    Raises:
        InputError: an argument does not fit.
    """

    videos: VideoList
    """The list; its order is the order of the store."""
    backbone: FrozenBackbone
    """uint8 [n, T, S, S, 3] -> float32 [n, D]."""
    recipe: ClipRecipe
    """The clips of a video."""
    positions: PositionMode = "paper"
    """How the clips' places are kept for the model."""
    seed: int = 0
    """With a video's id, decides its random clips."""
    batch_clips: int = 16
    """Clips that go through the backbone together."""
    shard_videos: int | None = None
    """Listed videos of a shard; None: a 32nd of the list, but 8 to 128."""
    dtype: torch.dtype = torch.float16
    """Of the features kept."""
    timeout: float = 60.0
    """Seconds for a video, and one more for every 256 KiB of its file."""
    decoder: DecoderName = "auto"
    """PyAV, torchcodec, or DALI on the backbone's device: the same frames; resized, pixels differ slightly."""

    def __post_init__(self) -> None:
        videos, recipe, backbone = self.videos, self.recipe, self.backbone
        if len(videos) == 0:
            raise InputError(f"{videos.source}: the list is empty")
        check_ids([entry.id for entry in videos], rows=len(videos))
        if recipe.num_frames != backbone.num_frames or recipe.size != backbone.size:
            raise InputError(
                f"the clip recipe gives {recipe.num_frames} frames of {recipe.size} x {recipe.size} pixels, "
                f"the backbone {backbone.name!r} takes {backbone.num_frames} of {backbone.size} x {backbone.size}"
            )
        if self.dtype not in _DTYPES:
            raise InputError(f"{self.dtype = }: expected torch.float16, torch.bfloat16 or torch.float32")
        if self.shard_videos is None:
            object.__setattr__(self, "shard_videos", default_shard_videos(len(videos)))
        for name in ("batch_clips", "shard_videos"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} = {value!r}: expected an integer of at least 1")
        if not self.timeout > 0:
            raise InputError(f"timeout = {self.timeout!r}: expected a positive number of seconds")
        if self.decoder not in get_args(DecoderName):
            raise InputError(
                f"decoder = {self.decoder!r}: expected one of {', '.join(get_args(DecoderName))}"
            )
        if self.positions not in ("paper", "seconds", "fraction"):
            raise InputError(f"positions = {self.positions!r}: expected 'paper', 'seconds' or 'fraction'")

    @property
    def parts(self) -> list[Sequence[VideoEntry]]:
        """The videos of each shard."""
        assert self.shard_videos is not None
        starts = range(0, len(self.videos), self.shard_videos)
        return [self.videos.entries[start : start + self.shard_videos] for start in starts]

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes."""
        return None if self.videos.classes is None else list(self.videos.classes)

    @property
    def decode(self) -> DecodeJob:
        """What a worker process does with a video."""
        library = "auto" if self.decoder == "dali" else self.decoder
        return DecodeJob(recipe=self.recipe, seed=self.seed, decoder=library)

    def decoded(
        self, stream: Iterable[tuple[VideoEntry, int]], *, workers: int | None
    ) -> Generator[Decoded, None, None]:
        """What became of each video of (entry, epoch), in their order; closing the generator ends the workers."""
        if self.decoder == "dali":
            device = str(self.backbone.device)
            return decode_by_dali(self.decode, stream, workers=workers, timeout=self.timeout, device=device)
        items = (item_of(entry, epoch=epoch) for entry, epoch in stream)
        return decode_in_workers(self.decode, items, workers=workers, timeout=self.timeout)

    def plan(self) -> dict[str, Any]:
        """What the store follows from, as a JSON object: its provenance."""
        rows = [[entry.id, entry.label] for entry in self.videos]
        plan = {
            "scalefast_version": __version__,
            "backbone": self.backbone.describe(),
            "recipe": self.recipe.to_dict(),
            "positions": self.positions,
            "seed": self.seed,
            "dtype": dtype_name(self.dtype),
            "batch_clips": self.batch_clips,
            "shard_videos": self.shard_videos,
            # Where the files lie may change between two runs: ids and labels alone.
            "list": {
                "videos": len(rows),
                "hash": hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest(),
            },
        }
        if self.decoder in ("torchcodec", "dali"):  # they resize RGB, PyAV the decoder's own planes
            device = f" on {self.backbone.device.type}" if self.decoder == "dali" else ""
            plan["decoder"] = self.decoder + device
        return check_provenance(plan)

    def builder(self, clock: StageClock | None = None) -> Callable[[], ShardBuilder]:
        """Makes the builder of one shard after the other."""
        return partial(
            ShardBuilder,
            backbone=self.backbone,
            feature_dim=self.backbone.feature_dim,
            batch_clips=self.batch_clips,
            dtype=self.dtype,
            normalize=self._normalize,
            labels=make_labels(self.videos.entries, classes=self.videos.classes),
            clock=clock,
        )

    def _normalize(self, raw: np.ndarray, duration: float) -> np.ndarray:
        from scalefast.video import normalize_positions

        return normalize_positions(raw, mode=self.positions, duration=duration)


def default_shard_videos(listed: int) -> int:
    """Listed videos of a shard: a 32nd of the list, but 8 to 128, so that a kill costs little of any list."""
    return min(max(-(-listed // 32), 8), 128)


def item_of(entry: VideoEntry, *, epoch: int = 0) -> Item:
    """What a worker process needs to know of a video."""
    return str(entry.path), entry.id, epoch


def built_shards(
    job: Extraction,
    todo: Mapping[int, Sequence[VideoEntry]],
    *,
    workers: int | None,
    clock: StageClock,
    told: Told,
) -> Generator[tuple[int, ShardContent], None, None]:
    """The shards of `todo`, one after the other: worker processes decode, this one runs the backbone.

    Closing the generator ends the workers.
    """
    entries = list(chain(*todo.values()))
    if not entries:
        return
    build = job.builder(clock)
    with closing(job.decoded(((entry, 0) for entry in entries), workers=workers)) as decoded:
        for index, part in todo.items():
            yield index, build_shard(build(), part, decoded, clock=clock, told=told)


def build_shard(
    shard: ShardBuilder,
    part: Sequence[VideoEntry],
    decoded: Iterable[Decoded],
    *,
    clock: StageClock,
    told: Told,
) -> ShardContent:
    """One shard, from the next decoded videos."""
    results = iter(decoded)
    for entry in part:
        with clock("decode"):
            result = next(results)
        shard.add(entry, result)
        told(entry, result)
    return shard.finish()
