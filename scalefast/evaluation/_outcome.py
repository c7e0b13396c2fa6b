"""What goes into a protocol and what comes out of it.

Legend: `N` videos, `M` test videos, `R` clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scalefast.evaluation.baselines import Columns
from scalefast.evaluation.bootstrap import bootstrap_interval
from scalefast.evaluation.comparison import Difference
from scalefast.evaluation.data import class_labels, regression_targets
from scalefast.evaluation.jackknife import jackknife_error, jackknife_interval, normal_p_value
from scalefast.evaluation.representations import represent, represent_clips

if TYPE_CHECKING:
    from scalefast.features import FeatureStore
    from scalefast.model import SCALE

__all__ = ["Outcome", "Split", "compare"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split under evaluation; SCALE runs when its columns are first asked for, and once."""

    store: FeatureStore
    """The videos."""
    model: SCALE
    """The model under evaluation."""
    random: SCALE
    """The same architecture with random weights."""
    device: torch.device
    """Where everything is computed."""
    pretraining: dict[str, Any] = field(default_factory=dict)
    """Configuration of the run; empty for a model without one."""
    products: torch.dtype = torch.float32
    """In which heads that are trained by gradient descent compute their products; all else is fp32 or fp64."""
    say: Callable[[str], None] = field(default=lambda text: None)
    """Is told how far trainings are."""
    fitted: dict[tuple[str, str, int], Outcome] = field(default_factory=dict)
    """What such heads reached, by head, column and seed: rows of the table that ask for the same train it once."""

    @cached_property
    def labels(self) -> Tensor:
        """`[N]` int64."""
        return class_labels(self.store).to(self.device)

    @cached_property
    def targets(self) -> Tensor:
        """`[N, K]` fp64, where labels are numbers."""
        return regression_targets(self.store).to(self.device)

    @cached_property
    def videos(self) -> Columns:
        """One row a video."""
        trained, random = (represent(m, self.store, device=self.device) for m in (self.model, self.random))
        return Columns(trained=trained, random=random)

    @cached_property
    def _clips(self) -> tuple[Columns, Tensor]:
        found = [represent_clips(m, self.store, device=self.device) for m in (self.model, self.random)]
        return Columns(trained=found[0][0], random=found[1][0]), found[0][1]

    @property
    def clips(self) -> Columns:
        """One row a clip."""
        return self._clips[0]

    @property
    def clip_videos(self) -> Tensor:
        """`[R]` int64, the video of each clip."""
        return self._clips[1]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One number of the table, and what its interval is made of."""

    value: float
    """In [0, 1]; an adjusted Rand index in [-1, 1]; a share of explained variance at most 1."""
    scores: Tensor | None = None
    """`[M]` of the test videos, whose mean is the value; None where the value is no mean over videos."""
    strata: tuple[int, ...] | None = None
    """Sizes of consecutive parts of the scores (test sets of several splits) whose means count the same."""
    influence: Tensor | None = None
    """`[M]` fp64, what each test video does to the value (`jackknife.influences`), where scores are None."""
    least: float = -1.0
    """The smallest value that there is, where scores are None; the largest is 1."""
    predicted: Tensor | None = None
    """`[M]` int64 class ids, where the protocol predicts one class."""
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON-able: every number that was chosen, and how."""

    @classmethod
    def of(cls, predicted: Tensor, labels: Tensor, settings: dict[str, Any]) -> Outcome:
        """Accuracy of `[M]` predictions."""
        right = (predicted == labels).cpu()
        return cls(
            value=right.double().mean().item(), scores=right, predicted=predicted.cpu(), settings=settings
        )

    def interval(self, *, seed: int) -> tuple[float, float]:
        """95% interval of the value over test videos."""
        if self.scores is not None:
            return bootstrap_interval(self.scores, seed=seed, strata=self.strata)
        assert self.influence is not None
        error = jackknife_error(self.influence, strata=self.strata)
        return jackknife_interval(self.value, error, least=self.least, most=1.0)


def compare(ours: Outcome, theirs: Outcome, *, names: tuple[str, str], seed: int) -> Difference:
    """Ours less theirs, on the same test videos."""
    if ours.scores is not None and theirs.scores is not None:
        return Difference.paired(ours.scores, theirs.scores, names=names, seed=seed, strata=ours.strata)
    assert ours.influence is not None and theirs.influence is not None
    value = ours.value - theirs.value
    error = jackknife_error(ours.influence - theirs.influence, strata=ours.strata)
    low, high = jackknife_interval(value, error, least=ours.least - 1.0, most=1.0 - theirs.least)
    return Difference(
        value=value,
        low=low,
        high=high,
        p_value=normal_p_value(value, error),
        ours=names[0],
        theirs=names[1],
    )
