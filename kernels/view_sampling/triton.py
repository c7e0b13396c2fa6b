"""Views drawn and gathered from the bank in one kernel, which reads the chosen clips and nothing else.

Shapes: `N` videos in the bank, `C` clips a video, `D` feature, `B` videos in the batch, `V` clips a set.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..compilation import Shipped
from ..compilation.launch import Launch
from ..philox import Site
from ..philox.triton import philox4

__all__ = ["MAX_CLIPS", "sample_views", "shipped"]

MAX_CLIPS = 512
"""Clips a video that a program ranks in registers."""

_VIEW_SITE = tl.constexpr(int(Site.VIEW))
_LAST = tl.constexpr(1 << 62)
_SLOTS = 16  # clips that a program copies
_OTHERS = 32  # clips that all are compared with at a time
_ELEMENTS = 4096  # of a tile: 32 a thread, four 16-byte loads in bf16


@triton.jit
def _keys(seed, step, video, o_clip, clips):
    """What clips are sorted by: their word, then their index; beyond the last clip, behind all others."""
    word, _, _, _ = philox4(seed, step, video, _VIEW_SITE, o_clip)
    return tl.where(o_clip < clips, word.to(tl.int64) * 65536 + o_clip, _LAST)


@triton.jit(do_not_specialize=["videos", "clips", "chosen"])
def sample_kernel(
    p_bank,
    p_positions,
    p_rows,
    p_state,
    p_features,
    p_places,
    videos,
    clips,
    chosen,
    width,
    numbers,
    bank_video,
    bank_clip,
    bank_channel,
    positions_video,
    positions_clip,
    positions_number,
    CLIPS: tl.constexpr,
    OTHERS: tl.constexpr,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
    NUMBERS: tl.constexpr,
):
    """Program (b, i) writes slots `i * SLOTS` ... of video `rows[b]`, of `chosen` = 2 V: features and positions.

    A clip's slot is its rank: how many keys are smaller. No sort, no memory beside the result.
    """
    i_set = tl.program_id(0)
    video = tl.load(p_rows + i_set)
    seed, step = tl.load(p_state), tl.load(p_state + 1)
    o_clip = tl.arange(0, CLIPS)
    key = _keys(seed, step, video, o_clip, clips)
    rank = tl.zeros([CLIPS], tl.int32)
    for first in range(0, clips, OTHERS):
        others = _keys(seed, step, video, first + tl.arange(0, OTHERS), clips)
        rank += tl.sum((others[None, :] < key[:, None]).to(tl.int32), 1)
    slot = tl.program_id(1) * SLOTS + tl.arange(0, SLOTS)
    clip = tl.sum(tl.where(rank[None, :] == slot[:, None], o_clip[None, :], 0), 1).to(tl.int64)
    live = slot < chosen
    # A row outside the bank gives NaN rather than other memory; on CPU it is refused.
    there = live & (video >= 0) & (video < videos)
    i_out = i_set.to(tl.int64) * chosen + slot
    p_bank += video * bank_video + clip[:, None] * bank_clip
    for first in range(0, width, WIDTH):
        o_d = first + tl.arange(0, WIDTH)[None, :]
        inside = o_d < width
        b_clip = tl.load(
            p_bank + o_d.to(tl.int64) * bank_channel, mask=there[:, None] & inside, other=float("nan")
        )
        tl.store(p_features + i_out[:, None] * width + o_d, b_clip, mask=live[:, None] & inside)
    p_positions += video * positions_video + clip[:, None] * positions_clip
    o_n = tl.arange(0, NUMBERS)[None, :]
    inside = o_n < numbers
    p_number = p_positions + o_n.to(tl.int64) * positions_number
    b_place = tl.load(p_number, mask=there[:, None] & inside, other=float("nan"))
    tl.store(p_places + i_out[:, None] * numbers + o_n, b_place, mask=live[:, None] & inside)


def _launch(
    bank: Tensor, positions: Tensor, rows: Tensor, state: Tensor, views: int
) -> tuple[Launch, tuple[Tensor, Tensor]]:
    videos, clips, width = bank.shape
    sets, numbers = rows.numel(), positions.shape[2]
    features = torch.empty(sets, 2, views, width, dtype=bank.dtype, device=bank.device)
    places = torch.empty(sets, 2, views, numbers, dtype=positions.dtype, device=bank.device)
    padded = triton.next_power_of_2(clips)
    slots = min(_SLOTS, triton.next_power_of_2(2 * views))
    channels = width & -width if width & -width >= 128 else triton.next_power_of_2(max(1, width))
    launch = Launch(
        sample_kernel,
        (sets, triton.cdiv(2 * views, slots)),
        (
            bank,
            positions,
            rows.contiguous(),
            state,
            features,
            places,
            videos,
            clips,
            2 * views,
            width,
            numbers,
            *bank.stride(),
            *positions.stride(),
        ),
        {
            "CLIPS": padded,
            "OTHERS": min(_OTHERS, padded),
            "SLOTS": slots,
            "WIDTH": min(channels, _ELEMENTS // slots),
            "NUMBERS": triton.next_power_of_2(max(1, numbers)),
        },
        num_warps=max(4, padded // 32),  # 32 comparisons a thread at a time
    )
    return launch, (features, places)


@torch.library.custom_op(
    "scalefast::sample_views_forward",
    mutates_args=(),
    schema="(Tensor bank, Tensor positions, Tensor rows, Tensor state, SymInt views) -> (Tensor, Tensor)",
)
def _sample(
    bank: Tensor, positions: Tensor, rows: Tensor, state: Tensor, views: int
) -> tuple[Tensor, Tensor]:
    launch, outputs = _launch(bank, positions, rows, state, views)
    launch.run()
    return outputs


@_sample.register_fake
def _(bank: Tensor, positions: Tensor, rows: Tensor, state: Tensor, views: int) -> tuple[Tensor, Tensor]:
    return (
        bank.new_empty(rows.shape[0], 2, views, bank.shape[2]),
        positions.new_empty(rows.shape[0], 2, views, positions.shape[2]),
    )


def sample_views(
    bank: Tensor, positions: Tensor, rows: Tensor, *, views: int, state: Tensor
) -> tuple[Tensor, Tensor]:
    """`reference.sample_views`, fused; no gradient for the bank."""
    return torch.ops.scalefast.sample_views_forward(bank, positions, rows, state, views)


def shipped() -> list[Shipped]:
    """512 videos, 2 x 8 of 16 clips of VideoMAE-B's 768 features (SCALE's own); more clips; other dtypes."""
    found = []
    for dtype, clips, width, views in (
        (torch.float16, 16, 768, 8),
        (torch.bfloat16, 16, 768, 8),
        (torch.bfloat16, 64, 1024, 16),
        (torch.bfloat16, 256, 768, 8),
        (torch.bfloat16, 512, 768, 8),
        (torch.float32, 16, 768, 8),
    ):
        bank = torch.empty(1000, clips, width, dtype=dtype, device="meta")
        positions = torch.empty(1000, clips, 7, device="meta")
        state, rows = (torch.empty(n, dtype=torch.int64, device="meta") for n in (2, 512))
        name = f"sample_views, 2 x {views} of {clips} clips of {width} {str(dtype)[6:]}"
        found.append(_launch(bank, positions, rows, state, views)[0].shipped(name, max_registers=128))
    return found
