"""PySlowFast's files of SlowFast networks, and the network that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from released._common import normalised
from released._slow import GREY, SPANS, Shapes, add_layer, conv, norm, pathway_shapes, residual, stem


def slowfast_shapes(*, width: int, blocks: Sequence[int], span: int, at: str = "") -> Shapes:
    """Both pathways and the four connections from the Fast one to the Slow one."""
    fast = [width // 8, width // 2, width, 2 * width]  # channels of the Fast pathway before each stage
    slow = pathway_shapes(
        0, width=width, blocks=blocks, stem=1, spans=SPANS, joined=[2 * channels for channels in fast]
    )
    shapes = slow | pathway_shapes(
        1, width=width // 8, blocks=blocks, stem=5, spans=(3, 3, 3, 3), joined=(0, 0, 0, 0)
    )
    for stage, channels in enumerate(fast, start=1):
        kernel = (2 * channels, channels, span, 1, 1)
        add_layer(shapes, f"s{stage}_fuse.conv_f2s", f"s{stage}_fuse.bn", kernel)
    return {f"{at}{name}": shape for name, shape in shapes.items()}


def slowfast(clips: Tensor, state: Mapping[str, Tensor], *, alpha: int) -> Tensor:
    """Feature of clips by the authors' weights of one SlowFast network."""
    w = {name: value.double() for name, value in state.items()}
    pixels = normalised(clips, *GREY)
    count = pixels.shape[2] // alpha
    seen = [
        index * (pixels.shape[2] - 1) // (count - 1) for index in range(count)
    ]  # first to last, rounded down
    slow, fast = stem(pixels[:, :, seen], w, 0), stem(pixels, w, 1)
    for stage in range(2, 6):
        at = f"s{stage - 1}_fuse"
        joined = norm(conv(fast, w, f"{at}.conv_f2s", time_stride=alpha), w, f"{at}.bn").clamp(min=0)
        slow = residual(torch.cat([slow, joined], 1), w, stage=stage, number=0)
        fast = residual(fast, w, stage=stage, number=1)
    return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)
