"""What a run trains on where there is no store: videos, a backbone, and how clips are cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalefast.errors import InputError
from scalefast.features._job import DecoderName, Extraction
from scalefast.features._shard import dtype_name
from scalefast.features.extraction import open_writer
from scalefast.online._fresh import FreshBank
from scalefast.online._kept import KeptBank, in_first_order
from scalefast.online._ledger import Ledger
from scalefast.training.bank.batch import Bank, BankSource
from scalefast.training.sampler import BatchPlan

if TYPE_CHECKING:
    from scalefast.backbones import FrozenBackbone
    from scalefast.training.config import PretrainConfig
    from scalefast.training.distributed import World
    from scalefast.video import ClipRecipe, VideoList
    from scalefast.video._positions import PositionMode

__all__ = ["OnlineVideos"]


@dataclass(frozen=True, kw_only=True)
class OnlineVideos(BankSource):
    """Videos to pretrain on: what `pretrain` takes in the place of a store.

    Every epoch decodes new random clips of every video, or, with `keep`, the first epoch's clips are put into a store
    on the way and later epochs read them there. What a step sees is a function of (seed, epoch, video): a
    resumed run goes on as if it had not stopped. Videos that cannot be decoded are left out of their batches, and
    nothing takes their place; the run folder's ledger.csv has them.

    Raises:
        InputError: the recipe's clips are not random.
    """

    videos: VideoList
    """What to train on; labels are not looked at."""
    backbone: FrozenBackbone
    """uint8 [n, T, S, S, 3] -> float32 [n, D], frozen; stays where it is."""
    recipe: ClipRecipe
    """Clips of a video in an epoch, at least twice the `views` of the run."""
    positions: PositionMode = "paper"
    """How the clips' places are given to the model."""
    batch_clips: int = 16
    """Clips that go through the backbone together."""
    workers: int | None = None
    """Processes that decode; None: one for each CPU."""
    timeout: float = 60.0
    """Seconds for a video, and one more for every 256 KiB of its file."""
    decoder: DecoderName = "auto"
    """Library that decodes, as for `extract`."""
    keep: str | os.PathLike[str] | None = None
    """Store (a path or URL) that the first epoch fills, in the order in which it sees the videos."""

    def __post_init__(self) -> None:
        if self.recipe.sampling != "random":
            raise InputError(f"training takes random clips, not those of the recipe {self.recipe.name!r}")

    def open_bank(
        self, *, config: PretrainConfig, world: World, folder: Path, say: Callable[[str], None]
    ) -> Bank:
        """The bank of one run.

        Raises:
            InputError: too few clips or videos for the run, or `keep` with several processes.
            StoreError: `keep` names another store, or a folder that holds something else.
        """
        if self.recipe.clips < 2 * config.views:
            raise InputError(
                f"two disjoint sets of views={config.views} need {2 * config.views} clips a video; the recipe has "
                f"{self.recipe.clips}"
            )
        if self.keep is not None and world.size > 1:
            raise InputError(
                "keep fills a store from one process; with several, extract first (torchrun ... scalefast extract) and "
                "train on the store"
            )
        job = Extraction(
            videos=self.videos,
            backbone=self.backbone,
            recipe=self.recipe,
            positions=self.positions,
            seed=config.seed,
            batch_clips=self.batch_clips,
            timeout=self.timeout,
            decoder=self.decoder,
        )
        common: dict[str, Any] = {
            "facts": self._facts(job),
            "world": world,
            "job": job,
            "workers": self.workers,
            "ledger": Ledger(job.videos, folder=folder, say=say),
        }
        if self.keep is None:
            return FreshBank(**common)
        plan = BatchPlan(
            num_videos=len(job.videos), batch_size=config.batch_size, epochs=config.epochs, seed=config.seed
        )
        with open_writer(in_first_order(job, plan), self.keep, overwrite=False):
            pass  # another store in its place is refused before the run has a folder
        return KeptBank(**common, keep=self.keep)

    def _facts(self, job: Extraction) -> dict[str, Any]:
        """What identifies the run's data, for run.json: videos by number and hash, and how clips are made."""
        return {
            "videos": len(self.videos),
            "clips": self.recipe.clips,
            "feature_dim": self.backbone.feature_dim,
            "dtype": dtype_name(job.dtype),
            "online": "fresh clips" if self.keep is None else "clips of the first epoch",
            "provenance": job.plan(),
        }
