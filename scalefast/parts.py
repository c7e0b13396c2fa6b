"""What the recommended representation of a video is put together of, by name.

Shapes: `D` backbone feature, `H` SCALE's width, `K` moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from scalefast.model import SCALE

__all__ = [
    "DEFAULT_PARTS",
    "PARTS",
    "SIMILARITY_MOMENTS",
    "TIME_MOMENTS",
    "WHEN_PARTS",
    "Part",
    "check_parts",
    "part_sizes",
]

Part = Literal["mean", "std", "refined", "refined_std", "cls", "time", "self_similarity"]
"""
mean: `[D]`, mean over the clips of the backbone features.
std: `[D]`, their standard deviation over the clips.
refined: `[H]`, mean over the clips of SCALE's refined features.
refined_std: `[H]`, their standard deviation over the clips.
cls: `[H]`, SCALE's CLS.
time: `[K H]`, how the refined features change over the video (`scalefast.time_moments`).
self_similarity: `[15]`, when the refined features are alike, whatever they are (the same module).
"""

PARTS: tuple[Part, ...] = get_args(Part)

DEFAULT_PARTS: tuple[Part, ...] = ("mean", "refined", "refined_std", "cls")
"""Of models that were saved before parts could be chosen."""

WHEN_PARTS: tuple[Part, ...] = ("time", "self_similarity")
"""Those that say when something goes on."""

TIME_MOMENTS = 3
"""K: enough to tell the quarters of a video apart, and as many as 5 test clips can carry."""

SIMILARITY_MOMENTS = 5
"""Moments between which self-similarity is taken; 4 and 6 do about as well (docs/ablation.md)."""


def check_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
        ValueError: an unknown name, one given twice, or "mean" is not among them (where SCALE has found nothing to
            learn, it is what is left).
    """
    names = tuple(parts) if isinstance(parts, (list, tuple)) else ()
    if "mean" not in names or len(set(names)) < len(names) or not set(names) <= set(PARTS):
        raise ValueError(f"parts must be 'mean' and others of {', '.join(PARTS)}, each once; got {parts!r}")
    return names


def part_sizes(model: SCALE) -> list[int]:
    """How many numbers each part of a model has."""
    sizes = {
        "mean": model.feature_dim,
        "std": model.feature_dim,
        "time": TIME_MOMENTS * model.hidden_dim,
        "self_similarity": SIMILARITY_MOMENTS * (SIMILARITY_MOMENTS + 1) // 2,
    }
    return [sizes.get(part, model.hidden_dim) for part in model.parts]
