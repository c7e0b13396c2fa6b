"""What a bank is: a source of batches, in the order of the run.

Shapes: `B` videos in this process's part of the batch, `V` clips a set, `D` feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor

from scalefast.kernels import RandomState
from scalefast.training.distributed import World
from scalefast.training.sampler import BatchPlan

if TYPE_CHECKING:
    from scalefast.training.config import PretrainConfig

__all__ = ["Bank", "BankSource", "Batch"]


class Batch(NamedTuple):
    """This process's part of a step's batch, on the device that trains."""

    rows: Tensor
    """int64 [B]: which videos, by their row in the store."""

    features: Tensor | None = None
    """[B, 2, V, D] in the dtype of the store: two disjoint sets of clips; None where the step draws them itself."""

    positions: Tensor | None = None
    """float32 [B, 2, V, 7], or None likewise."""


@dataclass(frozen=True, kw_only=True)
class Bank(ABC):
    """The clip features of a store, checked, wherever they lie."""

    facts: dict[str, Any]
    """What identifies the store: sizes, dtype, checksums of the contents, provenance. JSON values."""

    world: World
    """This process, and where it trains."""

    even: ClassVar[bool] = True
    """Whether all batches have one size; where they have not, steps are not captured in a CUDA graph."""

    def __len__(self) -> int:
        return int(self.facts["videos"])

    @property
    def feature_dim(self) -> int:
        """D."""
        return int(self.facts["feature_dim"])

    @abstractmethod
    def batches(self, plan: BatchPlan, *, start: int, views: int) -> Generator[Batch]:
        """This process's part of every batch from the 0-based step `start` on, a pure function of the plan."""

    def sets(self, batch: Batch, *, views: int, rng: RandomState) -> tuple[Tensor, Tensor]:
        """The two sets of each video: features [B, 2, V, D] and positions [B, 2, V, 7]; runs within the step."""
        assert batch.features is not None and batch.positions is not None
        return batch.features, batch.positions


class BankSource(ABC):
    """Something other than a store that a run can train on, such as `scalefast.online.OnlineVideos`."""

    @abstractmethod
    def open_bank(
        self, *, config: PretrainConfig, world: World, folder: Path, say: Callable[[str], None]
    ) -> Bank:
        """The bank of a run with this configuration in the run folder `folder`."""
