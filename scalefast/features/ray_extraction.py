"""Extraction on a Ray cluster: the store of `extract`, byte for byte, filled by many machines."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from scalefast._progress import VideoProgress
from scalefast.errors import InputError
from scalefast.features._job import DecoderName
from scalefast.features._ray import RayCluster
from scalefast.features._stages import StageClock
from scalefast.features._summary import ExtractSummary
from scalefast.features._writer import StoreWriter
from scalefast.features.extraction import announce, summarize

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.video import ClipRecipe, VideoList
    from scalefast.video._positions import PositionMode

__all__ = ["extract_on_ray"]


def extract_on_ray(
    videos: VideoList,
    *,
    load: Callable[[str], FrozenBackbone],
    out: str | os.PathLike[str],
    recipe: ClipRecipe,
    positions: PositionMode = "paper",
    seed: int = 0,
    batch_clips: int = 16,
    shard_videos: int | None = None,
    dtype: torch.dtype = torch.float16,
    timeout: float = 60.0,
    decoder: DecoderName = "auto",
    overwrite: bool = False,
    progress: bool = True,
    address: str | None = None,
    backbones: int | None = None,
    decoders: int | None = None,
) -> ExtractSummary:
    """Decode every video of a list on a Ray cluster once and keep its clips' features.

    CPU actors decode, GPU actors run the backbone, this process writes. Videos and weights must be where every
    machine finds them under the same path or URL; the store, only where this process does. Decoders and
    backbone actors that die are replaced, and what they had not finished is done again; should this process die,
    the same call goes on behind the finished shards. An extraction may go on with the other engine.

    Args:
        videos: the list; its order is the order of the store.
        load: device ("cuda" or "cpu") -> backbone; called in each backbone actor, so it must be picklable.
        out, recipe, positions, seed, batch_clips, shard_videos, dtype, timeout, overwrite, progress: as for `extract`.
        decoder: as for `extract`, but not "dali": decoding actors have no GPU.
        address: of a running cluster, as `ray.init` takes it ("auto", "ray://head:10001"); None: the one that this
            process has joined, or that RAY_ADDRESS names, or one on this machine for this call.
        backbones: actors that run the backbone; None: one for each GPU of the cluster, or one.
        decoders: actors that decode, in all; None: one for each CPU of the cluster.

    Raises:
        As `extract`; also MissingExtraError: Ray is not installed. ScalefastError: actors die again and again.
    """
    if len(videos) == 0:
        raise InputError(f"{videos.source}: the list is empty")
    if decoder == "dali":
        raise InputError("on Ray CPU actors decode: take the decoder auto, pyav or torchcodec, not dali")
    arguments = {
        "videos": videos,
        "recipe": recipe,
        "positions": positions,
        "seed": seed,
        "batch_clips": batch_clips,
        "shard_videos": shard_videos,
        "dtype": dtype,
        "timeout": timeout,
        "decoder": decoder,
    }
    with RayCluster(
        load, arguments=arguments, address=address, backbones=backbones, decoders=decoders
    ) as cluster:
        plan = cluster.plan()
        shards = -(-len(videos) // plan["shard_videos"])
        classes = None if videos.classes is None else list(videos.classes)
        with StoreWriter(out, plan=plan, shards=shards, classes=classes, overwrite=overwrite) as writer:
            return _write(
                cluster,
                writer,
                listed=len(videos),
                per_shard=plan["shard_videos"],
                frames=recipe.clips * recipe.num_frames,
                progress=progress,
            )


def _write(
    cluster: RayCluster, writer: StoreWriter, *, listed: int, per_shard: int, frames: int, progress: bool
) -> ExtractSummary:
    todo = [index for index in writer.mine if index not in writer.entries]
    left = sum(min(per_shard, listed - index * per_shard) for index in todo)
    kept, clock = len(writer.mine) - len(todo), StageClock()
    with VideoProgress(
        total=listed, done=listed - left, label="extract", show=progress, detail=clock.__str__
    ) as shown:
        announce(shown, writer)
        with closing(cluster.build(todo, clock=clock, say=shown.say)) as built:
            for index, content in built:
                with clock("write"):
                    writer.write_shard(index, content)
                for _, status, *_ in content.ledger or ():
                    shown.advance(frames=frames if status in ("ok", "short") else 0)
    return summarize(
        writer,
        shown,
        clock,
        decoded=left,
        kept_shards=kept,
        workers=cluster.decoders,
        on_gpu=cluster.on_gpu,
    )
