"""Random checkpoints laid out as the authors' files are, and plain networks that compute on them directly.

The networks read the authors' names and use no module of the library or of transformers: one product, one
softmax and one normalisation after the other, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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


def slow_shapes(*, width: int, blocks: tuple[int, ...], at: str = "") -> dict[str, tuple[int, ...]]:
    """Of the Slow pathway of a SlowFast network."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(conv: str, norm: str, kernel: tuple[int, ...]) -> None:
        shapes[f"{at}{conv}.weight"] = kernel
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            shapes[f"{at}{norm}.{part}"] = () if part == "num_batches_tracked" else (kernel[0],)

    add("s1.pathway0_stem.conv", "s1.pathway0_stem.bn", (width, 3, 1, 7, 7))
    channels = width
    for stage, count in enumerate(blocks):
        inner, outputs, temporal = width * 2**stage, width * 2 ** (stage + 2), (1, 1, 3, 3)[stage]
        for index in range(count):
            b = f"s{stage + 2}.pathway0_res{index}"
            if index == 0:
                add(f"{b}.branch1", f"{b}.branch1_bn", (outputs, channels, 1, 1, 1))
            add(f"{b}.branch2.a", f"{b}.branch2.a_bn", (inner, channels, temporal, 1, 1))
            add(f"{b}.branch2.b", f"{b}.branch2.b_bn", (inner, inner, 1, 3, 3))
            add(f"{b}.branch2.c", f"{b}.branch2.c_bn", (outputs, inner, 1, 1, 1))
            channels = outputs
    return shapes


def rhobyol_shapes(*, width: int, blocks: tuple[int, ...], head: str) -> dict[str, tuple[int, ...]]:
    """Trained network and momentum teacher, each with its head, and the training's own state."""
    shapes: dict[str, tuple[int, ...]] = {"ptr": (1,), "iter": (1,), "queue_x": (4, 2)}
    for at in ("backbone.", "backbone_hist."):
        shapes |= slow_shapes(width=width, blocks=blocks, at=at)
        shapes |= {f"{at}{head}.projection.projection.0.weight": (4, 32 * width)}
    return shapes


def slow(clips: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Feature of clips by the authors' weights of one Slow network; each convolution as a sum over its taps."""
    w = {name: value.double() for name, value in state.items()}

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = w[f"{name}.weight"]
        t, h, _ = (size // 2 for size in kernel.shape[2:])
        frames, rows, columns = x.shape[2:]
        padded = torch.nn.functional.pad(x, (h, h, h, h, t, t))
        taps = torch.zeros((), dtype=torch.float64)
        for i in range(kernel.shape[2]):
            for j in range(kernel.shape[3]):
                for k in range(kernel.shape[4]):
                    seen = padded[:, :, i : i + frames, j : j + rows : stride, k : k + columns : stride]
                    taps = taps + torch.einsum("ncthw,oc->nothw", seen, kernel[:, :, i, j, k])
        return taps

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            w[f"{name}.{part}"].view(1, -1, 1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = normalised(clips, (0.45,) * 3, (0.225,) * 3)
    x = norm(conv(x, "s1.pathway0_stem.conv", 2), "s1.pathway0_stem.bn").clamp(min=0)
    rows, columns = x.shape[3:]
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-math.inf)
    windows = [padded[..., j : j + rows : 2, k : k + columns : 2] for j in range(3) for k in range(3)]
    x = torch.stack(windows).amax(0)
    for stage in range(2, 6):
        index = 0
        while f"s{stage}.pathway0_res{index}.branch2.a.weight" in w:
            b, stride = f"s{stage}.pathway0_res{index}", 2 if stage > 2 and index == 0 else 1
            y = norm(conv(x, f"{b}.branch2.a"), f"{b}.branch2.a_bn").clamp(min=0)
            y = norm(conv(y, f"{b}.branch2.b", stride), f"{b}.branch2.b_bn").clamp(min=0)
            y = norm(conv(y, f"{b}.branch2.c"), f"{b}.branch2.c_bn")
            if index == 0:
                x = norm(conv(x, f"{b}.branch1", stride), f"{b}.branch1_bn")
            x = (x + y).clamp(min=0)
            index += 1
    return x.mean((2, 3, 4))


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
