"""V-JEPA 2's averaged encoder, and the network that it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from released._common import IMAGENET, layer_norm, mlp, normalised


def vjepa2_shapes(*, width: int, depth: int, hidden: int, patch: int) -> dict[str, tuple[int, ...]]:
    """Of V-JEPA 2's averaged encoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 8, width),
        "patch_embed.proj.weight": (width, 3, 2, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for index in range(depth):
        for layer, shape in (
            ("norm1", (width,)),
            ("attn.qkv", (3 * width, width)),
            ("attn.proj", (width, width)),
            ("norm2", (width,)),
            ("mlp.fc1", (hidden, width)),
            ("mlp.fc2", (width, hidden)),
        ):
            at = f"blocks.{index}.{layer}"
            shapes |= {f"{at}.weight": shape, f"{at}.bias": shape[:1]}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return {f"module.backbone.{name}": shape for name, shape in shapes.items()}


def vjepa2(clips: Tensor, state: Mapping[str, Tensor], *, heads: int) -> Tensor:
    """Feature of clips by the authors' weights; the rotation written out, one pair of channels after the other."""
    w = {name.removeprefix("module.backbone."): value.double() for name, value in state.items()}
    kernel, pixels = w["patch_embed.proj.weight"], normalised(clips, *IMAGENET)
    width, _, tubelet, patch, _ = kernel.shape
    tokens, places = [], []
    for t in range(pixels.shape[2] // tubelet):
        for y in range(pixels.shape[3] // patch):
            for x in range(pixels.shape[4] // patch):
                cube = pixels[:, :, t * tubelet : (t + 1) * tubelet, y * patch : (y + 1) * patch]
                cube = cube[..., x * patch : (x + 1) * patch].flatten(1)
                tokens.append(cube @ kernel.flatten(1).T + w["patch_embed.proj.bias"])
                places.append((t, y, x))
    h, head = torch.stack(tokens, 1), width // heads
    third = 2 * (head // 3 // 2)

    def rotated(z: Tensor) -> Tensor:
        out = z.clone()
        for axis in range(3):
            position = torch.tensor([float(place[axis]) for place in places], dtype=torch.float64)
            for pair in range(third // 2):
                even, odd = axis * third + 2 * pair, axis * third + 2 * pair + 1
                # the released networks were trained with frequencies repeated blockwise: channel c has number c
                # modulo a half
                one, two = (
                    10000 ** -(channel % (third // 2) / (third / 2)) for channel in (2 * pair, 2 * pair + 1)
                )
                out[..., even] = z[..., even] * (position * one).cos() - z[..., odd] * (position * one).sin()
                out[..., odd] = z[..., odd] * (position * two).cos() + z[..., even] * (position * two).sin()
        return out

    index = 0
    while f"blocks.{index}.norm1.weight" in w:
        b = f"blocks.{index}"
        inner = layer_norm(h, w[f"{b}.norm1.weight"], w[f"{b}.norm1.bias"])
        q, k, v = (inner @ w[f"{b}.attn.qkv.weight"].T + w[f"{b}.attn.qkv.bias"]).split(width, -1)
        seen = []
        for at in range(0, width, head):
            part = slice(at, at + head)
            scores = rotated(q[..., part]) @ rotated(k[..., part]).transpose(1, 2) / math.sqrt(head)
            seen.append(torch.softmax(scores, -1) @ v[..., part])
        h = h + torch.cat(seen, -1) @ w[f"{b}.attn.proj.weight"].T + w[f"{b}.attn.proj.bias"]
        h = h + mlp(layer_norm(h, w[f"{b}.norm2.weight"], w[f"{b}.norm2.bias"]), w, f"{b}.mlp")
        index += 1
    return layer_norm(h, w["norm.weight"], w["norm.bias"]).mean(1)
