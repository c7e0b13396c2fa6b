"""When in a video it is like the query: pairs of clips, in seconds.

Legend: `Q` clips of the query, `V` clips of a video that was found, `W` width of a clip's vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scalefast.evaluation.representations import Representation
from scalefast.model import SCALE

__all__ = ["Moment", "clip_vectors", "nearest_moments"]

BACKBONE_ONLY: tuple[Representation, ...] = ("mean", "mean_std", "mean_time", "max")
SCALE_ONLY: tuple[Representation, ...] = ("refined", "cls")

SAME_TIME = 0.5
"""Share of the union of two stretches of time from which on they count as one."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Some seconds of a video that was found, and those of the query to which they are most similar."""

    start: float
    """Seconds in the video that was found."""
    end: float
    """Its end."""
    query_start: float | None
    """Seconds in the query; None where they are not known."""
    query_end: float | None
    """Its end."""
    similarity: float
    """Cosine of the two clips, in [-1, 1]."""


def clip_vectors(
    model: SCALE, features: Tensor, positions: Tensor, *, representation: Representation
) -> Tensor:
    """Unit vectors `[V, W]` of the clips of one video, by which they are compared.

    The backbone's features for representations that know nothing of SCALE; SCALE's refined features for
    `refined` and `cls` (CLS itself belongs to no moment); else both side by side, each of length 1.

    Args:
        model: in eval mode.
        features: `[V, D]`, on the model's device.
        positions: `[V, 7]`.
        representation: by which the videos were compared.
    """
    backbone = F.normalize(features.float(), dim=1)
    if representation in BACKBONE_ONLY:
        return backbone
    with torch.inference_mode():
        refined = F.normalize(model(features[None], positions[None]).clips[0].float(), dim=1)
    return refined if representation in SCALE_ONLY else F.normalize(torch.cat([backbone, refined], 1), dim=1)


def nearest_moments(
    asked: Tensor,
    asked_times: Tensor | None,
    found: Tensor,
    found_times: Tensor,
    *,
    count: int,
) -> tuple[Moment, ...]:
    """The clips of a video that are most similar to any clip of the query, best first.

    Clips of one time (the crops of a frame, say) are one moment: of stretches that share half of their union
    only the best is given.

    Args:
        asked: `[Q, W]`, unit vectors.
        asked_times: `[Q, 2]` seconds, or None.
        found: `[V, W]`, unit vectors.
        found_times: `[V, 2]` seconds.
        count: at most so many.
    """
    similarity, nearest = (found @ asked.T).cpu().max(dim=1)
    chosen: list[int] = []
    for clip in similarity.sort(descending=True, stable=True).indices.tolist():
        if len(chosen) == count:
            break
        if all(_shared(found_times[clip], found_times[other]) < SAME_TIME for other in chosen):
            chosen.append(clip)
    moments = []
    for clip in chosen:
        there = [None, None] if asked_times is None else asked_times[int(nearest[clip])].tolist()
        start, end = found_times[clip].tolist()
        moments.append(
            Moment(
                start=start,
                end=end,
                query_start=there[0],
                query_end=there[1],
                similarity=min(max(similarity[clip].item(), -1.0), 1.0),
            )
        )
    return tuple(moments)


def _shared(one: Tensor, other: Tensor) -> float:
    """Length that two stretches of time share, as a part of what they cover together."""
    both = torch.stack([one, other]).double()
    shared = float(both[:, 1].min() - both[:, 0].max())
    covered = float(both[:, 1].max() - both[:, 0].min())
    return max(shared, 0.0) / covered if covered > 0 else 1.0
