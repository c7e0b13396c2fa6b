"""Set embedding and the gather of masked tokens on a GPU: what the public functions call, and what ships.

Shapes: `B` sets, `V` clips a set, `H` width, `C` capacity.
"""

from __future__ import annotations

import torch

from ..compilation import Shipped
from .triton_embed import backward_launches, embed_drawn, embed_launch, embed_sets
from .triton_gather import count_launch, gather_masked, place_launch, spread_launch
from .triton_mask import draw_launch, draw_mask

__all__ = ["draw_mask", "embed_drawn", "embed_sets", "gather_masked", "shipped"]


def shipped() -> list[Shipped]:
    """The reference shapes: 512 x 16 clips of width 512 in three dtypes, 1,024 x 8 of 256 (SCALE's own) in bf16."""
    state, rows = (torch.empty(n, dtype=torch.int64, device="meta") for n in (2, 512))
    draw, _ = draw_launch(state, rows, clips=16, threshold=1 << 30)
    found = [draw.shipped("draw_mask, 512 x 16", max_registers=64)]
    for dtype, sets, clips, width in (
        (torch.bfloat16, 512, 16, 512),
        (torch.bfloat16, 1024, 8, 256),
        (torch.float16, 512, 16, 512),
        (torch.float32, 512, 16, 512),
    ):
        x = torch.empty(sets, clips, width, dtype=dtype, device="meta")
        token = torch.empty(width, device="meta")
        mask = torch.empty(sets, clips, dtype=torch.bool, device="meta")
        rows = torch.empty(sets, dtype=torch.int64, device="meta")
        what = f"{sets} x {clips} x {width} {str(dtype)[6:]}"
        embed = embed_launch(x, x, mask, token, token)
        drawn = embed_launch(x, x, None, token, token, state=state, rows=rows, threshold=1 << 30)
        back, _ = backward_launches(
            embed[1], mask, (dtype, torch.float32, torch.float32), wants_x=True, wants_position=True
        )
        found += [
            embed[0].shipped(f"embed_sets forward, {what}", max_registers=96),
            drawn[0].shipped(f"embed_sets drawing its mask, {what}", max_registers=96),
            back[0].shipped(f"embed_sets backward, {what}", max_registers=128),
            back[1].shipped(f"embed_sets token gradients, {what}", max_registers=96),
        ]
        clips_of_tokens = embed[1][:, 1:]
        place, outputs = place_launch(clips_of_tokens, mask, capacity=2304)
        spread, _ = spread_launch(outputs[0], outputs[3], sets=sets, clips=clips)
        found += [
            count_launch(mask)[0].shipped(f"gather_masked count, {what}", max_registers=64),
            place.shipped(f"gather_masked forward, {what}", max_registers=96),
            spread.shipped(f"gather_masked backward, {what}", max_registers=96),
        ]
    return found
