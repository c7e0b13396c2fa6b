"""From a head and a set of clips to the logits of videos.

Legend: `M` videos, `B` videos of a batch, `V` clips, `C` classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scalefast.evaluation._heads import Head
from scalefast.evaluation._training import BATCH_SIZE, ClipSets
from scalefast.kernels import RandomState
from scalefast.model import padding

__all__ = ["averaged", "clip_logits", "products_in", "video_logits"]


def products_in(dtype: torch.dtype, *, device: torch.device) -> torch.autocast:
    """Within it, matrix products are computed in `dtype`; float32 leaves them as they are."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def clip_logits(head: Head, sets: ClipSets, videos: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, V, C]` of all clips of some videos (`[B, 1, C]` of a head that judges videos), and lengths `[B]`."""
    there = sets.lengths[videos]
    clips = torch.arange(int(there.max())).expand(len(videos), -1)
    tokens, positions, lengths = sets.batch(
        videos, clips.masked_fill(padding(there, clips.shape[1]), 0), there
    )
    rng = RandomState.create(0, rows=videos.to(tokens.device))
    return head(tokens, positions, lengths, rng), lengths


def video_logits(
    head: Head, sets: ClipSets, videos: Tensor | None = None, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Logits and log-probabilities `[M, C]` of videos, each averaged over all their clips.

    Args:
        head: in eval mode.
        sets: clips of all videos.
        videos: rows of those that are asked for; None: all.
        dtype: of the products.
    """
    videos = torch.arange(len(sets)) if videos is None else videos
    logits, log_probabilities = [], []
    with torch.inference_mode(), products_in(dtype, device=sets.rows.device):
        for members in videos.split(BATCH_SIZE):
            by_clip, lengths = clip_logits(head, sets, members)
            by_clip = by_clip.to(sets.rows.dtype)
            logits.append(averaged(by_clip, lengths))
            log_probabilities.append(averaged(by_clip.softmax(-1), lengths).log())
    return torch.cat(logits), torch.cat(log_probabilities)


def averaged(values: Tensor, lengths: Tensor) -> Tensor:
    """`[B, V, C]` -> `[B, C]`: mean over the clips that are there; `[B, 1, C]` is a video's own."""
    if values.shape[1] == 1:
        return values[:, 0]
    kept = values.masked_fill(padding(lengths, values.shape[1])[..., None], 0.0)
    return kept.sum(1) / lengths[:, None]
