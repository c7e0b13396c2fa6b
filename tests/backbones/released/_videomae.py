"""VideoMAE's pretrained and fine-tuned files, and the network that they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from released._common import IMAGENET, attention, layer_norm, mlp, normalised


def block_shapes(at: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Of VideoMAE's blocks, in the encoder, the decoder and the classifier."""
    return {
        f"{at}.norm1.weight": (width,),
        f"{at}.norm1.bias": (width,),
        f"{at}.attn.q_bias": (width,),
        f"{at}.attn.v_bias": (width,),
        f"{at}.attn.qkv.weight": (3 * width, width),
        f"{at}.attn.proj.weight": (width, width),
        f"{at}.attn.proj.bias": (width,),
        f"{at}.norm2.weight": (width,),
        f"{at}.norm2.bias": (width,),
        f"{at}.mlp.fc1.weight": (hidden, width),
        f"{at}.mlp.fc1.bias": (hidden,),
        f"{at}.mlp.fc2.weight": (width, hidden),
        f"{at}.mlp.fc2.bias": (width,),
    }


def videomae_shapes(
    *, fine_tuned: bool, width: int, depth: int, hidden: int, patch: int, decoder: int = 8, classes: int = 5
) -> dict[str, tuple[int, ...]]:
    at = "" if fine_tuned else "encoder."
    shapes: dict[str, tuple[int, ...]] = {} if fine_tuned else {"mask_token": (1, 1, decoder)}
    shapes |= {
        f"{at}patch_embed.proj.weight": (width, 3, 2, patch, patch),
        f"{at}patch_embed.proj.bias": (width,),
    }
    for index in range(depth):
        shapes |= block_shapes(f"{at}blocks.{index}", width, hidden)
    if fine_tuned:
        shapes |= {"fc_norm.weight": (width,), "fc_norm.bias": (width,)}
        return shapes | {"head.weight": (classes, width), "head.bias": (classes,)}
    shapes |= {"encoder.norm.weight": (width,), "encoder.norm.bias": (width,)}
    shapes |= block_shapes("decoder.blocks.0", decoder, 2 * decoder)
    shapes |= {"decoder.norm.weight": (decoder,), "decoder.norm.bias": (decoder,)}
    shapes |= {"decoder.head.weight": (6 * patch**2, decoder), "decoder.head.bias": (6 * patch**2,)}
    return shapes | {"encoder_to_decoder.weight": (decoder, width)}


def sine_table(tokens: int, width: int) -> Tensor:
    """VideoMAE's positions, [tokens, width]."""
    table = torch.zeros(tokens, width, dtype=torch.float64)
    for position in range(tokens):
        for channel in range(width):
            angle = position / 10000 ** (2 * (channel // 2) / width)
            table[position, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    return table


def videomae(
    clips: Tensor,
    state: Mapping[str, Tensor],
    *,
    heads: int,
    fine_tuned: bool,
    native: int = 32,
    positions: Callable[[Tensor], Tensor] = lambda table: table,
) -> Tensor:
    """Feature of clips by the authors' weights; `positions` resizes the table of a network of `native` tokens."""
    at = "" if fine_tuned else "encoder."
    w = {name.removeprefix(at): value.double() for name, value in state.items() if name.startswith(at)}
    kernel = w["patch_embed.proj.weight"]
    width, _, tubelet, patch, _ = kernel.shape
    pixels = normalised(clips, *IMAGENET)
    tokens = []
    for t in range(0, pixels.shape[2], tubelet):
        for y in range(0, pixels.shape[3], patch):
            for x in range(0, pixels.shape[4], patch):
                cube = pixels[:, :, t : t + tubelet, y : y + patch, x : x + patch]
                tokens.append(cube.flatten(1) @ kernel.flatten(1).T + w["patch_embed.proj.bias"])
    h = torch.stack(tokens, 1)
    h = h + positions(sine_table(native, width))
    index = 0
    while f"blocks.{index}.norm1.weight" in w:
        b = f"blocks.{index}"
        q_bias, v_bias = w[f"{b}.attn.q_bias"], w[f"{b}.attn.v_bias"]
        bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        inner = layer_norm(h, w[f"{b}.norm1.weight"], w[f"{b}.norm1.bias"])
        out = attention(inner, w[f"{b}.attn.qkv.weight"], bias, heads)
        h = h + out @ w[f"{b}.attn.proj.weight"].T + w[f"{b}.attn.proj.bias"]
        h = h + mlp(layer_norm(h, w[f"{b}.norm2.weight"], w[f"{b}.norm2.bias"]), w, f"{b}.mlp")
        index += 1
    if fine_tuned:
        return layer_norm(h.mean(1), w["fc_norm.weight"], w["fc_norm.bias"])
    return layer_norm(h, w["norm.weight"], w["norm.bias"]).mean(1)
