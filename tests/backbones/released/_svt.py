"""SVT's teacher, and the network that it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from released._common import attention, layer_norm, mlp, normalised


def svt_shapes(
    *, width: int, depth: int, hidden: int, patch: int, patches: int, frames: int
) -> dict[str, tuple[int, ...]]:
    """Of SVT's teacher with the projection head of its training."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, patches + 1, width),
        "time_embed": (1, frames, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for index in range(depth):
        b = f"blocks.{index}"
        for norm in ("norm1", "temporal_norm1", "norm2"):
            shapes |= {f"{b}.{norm}.weight": (width,), f"{b}.{norm}.bias": (width,)}
        for layer, outputs, inputs in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("temporal_attn.qkv", 3 * width, width),
            ("temporal_attn.proj", width, width),
            ("temporal_fc", width, width),
            ("mlp.fc1", hidden, width),
            ("mlp.fc2", width, hidden),
        ):
            shapes |= {f"{b}.{layer}.weight": (outputs, inputs), f"{b}.{layer}.bias": (outputs,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()}
    return shapes | {"head.mlp.0.weight": (4, width), "head.last_layer.weight_g": (4, 1)}


def svt(clips: Tensor, state: Mapping[str, Tensor], *, heads: int) -> Tensor:
    """Feature of clips by the authors' weights; embeddings of other sizes: that of the nearest native place."""
    at = "backbone."
    w = {name.removeprefix(at): value.double() for name, value in state.items() if name.startswith(at)}
    kernel, pixels = w["patch_embed.proj.weight"], normalised(clips, (0.45,) * 3, (0.225,) * 3)
    width, patch = kernel.shape[0], kernel.shape[-1]
    n, _, frames, size, _ = pixels.shape
    side, native = size // patch, math.isqrt(w["pos_embed"].shape[1] - 1)
    times = w["time_embed"].shape[1]
    tokens = torch.zeros(n, frames, side * side, width, dtype=torch.float64)
    for t in range(frames):
        for y in range(side):
            for x in range(side):
                part = pixels[:, :, t, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
                place = (y * native // side) * native + x * native // side
                token = part.flatten(1) @ kernel.flatten(1).T + w["patch_embed.proj.bias"]
                position = w["pos_embed"][0, 1 + place] + w["time_embed"][0, t * times // frames]
                tokens[:, t, y * side + x] = token + position
    cls = (w["cls_token"][0, 0] + w["pos_embed"][0, 0]).expand(n, width)

    def attend(z: Tensor, name: str) -> Tensor:
        out = attention(z, w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"], heads)
        return out @ w[f"{name}.proj.weight"].T + w[f"{name}.proj.bias"]

    def norm(z: Tensor, name: str) -> Tensor:
        return layer_norm(z, w[f"{name}.weight"], w[f"{name}.bias"])

    index = 0
    while f"blocks.{index}.norm1.weight" in w:
        b = f"blocks.{index}"
        moved = torch.zeros_like(tokens)
        for place in range(side * side):
            over_time = attend(norm(tokens[:, :, place], f"{b}.temporal_norm1"), f"{b}.temporal_attn")
            moved[:, :, place] = over_time @ w[f"{b}.temporal_fc.weight"].T + w[f"{b}.temporal_fc.bias"]
        tokens = tokens + moved
        seen = [
            attend(norm(torch.cat([cls[:, None], tokens[:, t]], 1), f"{b}.norm1"), f"{b}.attn")
            for t in range(frames)
        ]
        tokens = tokens + torch.stack([frame[:, 1:] for frame in seen], 1)
        cls = cls + torch.stack([frame[:, 0] for frame in seen]).mean(0)
        tokens = tokens + mlp(norm(tokens, f"{b}.norm2"), w, f"{b}.mlp")
        cls = cls + mlp(norm(cls, f"{b}.norm2"), w, f"{b}.mlp")
        index += 1
    return norm(cls, "norm")
