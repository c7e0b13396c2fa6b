"""What all layouts share: random weights, and products, softmax and normalisation written out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Every weight random and of ordinary size; variances positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
        if name.endswith("running_var"):
            value = 0.5 + value.abs()
        elif name.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        elif len(shape) > 1 and not name.endswith(("token", "embed")):
            value = value / math.sqrt(fan_in)
        else:
            value = 0.3 * value + (1.0 if name.endswith("weight") else 0.0)
        state[name] = value
    return state


def normalised(clips: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [N, T, H, W, 3] -> float64 [N, 3, T, H, W], by numpy."""
    frames = (clips.numpy().astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(frames.transpose(0, 4, 1, 2, 3).copy())


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def attention(x: Tensor, qkv: Tensor, bias: Tensor, heads: int) -> Tensor:
    """[N, L, D] -> [N, L, D], one head after the other; rows of `qkv`: all queries, all keys, all values."""
    width = x.shape[-1]
    q, k, v = (x @ qkv.T + bias).split(width, dim=-1)
    out = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = q[..., part] @ k[..., part].transpose(-1, -2) / math.sqrt(width // heads)
        out.append(torch.softmax(scores, -1) @ v[..., part])
    return torch.cat(out, -1)


def mlp(x: Tensor, w: Mapping[str, Tensor], at: str) -> Tensor:
    hidden = x @ w[f"{at}.fc1.weight"].T + w[f"{at}.fc1.bias"]
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ w[f"{at}.fc2.weight"].T + w[f"{at}.fc2.bias"]
