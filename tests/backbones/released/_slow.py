"""rhoBYOL's files, and the Slow network that they are, in parts that SlowFast networks are made of as well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from released._common import normalised

Shapes = dict[str, tuple[int, ...]]
GREY = ((0.45,) * 3, (0.225,) * 3)
SPANS = (1, 1, 3, 3)


def add_layer(shapes: Shapes, conv: str, norm: str, kernel: tuple[int, ...]) -> None:
    """A convolution without bias and the batch normalisation after it."""
    shapes[f"{conv}.weight"] = kernel
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        shapes[f"{norm}.{part}"] = () if part == "num_batches_tracked" else (kernel[0],)


def pathway_shapes(
    number: int, *, width: int, blocks: Sequence[int], stem: int, spans: Sequence[int], joined: Sequence[int]
) -> Shapes:
    """Of one pathway; `joined`: channels that the other one adds before each stage."""
    shapes: Shapes = {}
    add_layer(shapes, f"s1.pathway{number}_stem.conv", f"s1.pathway{number}_stem.bn", (width, 3, stem, 7, 7))
    channels = width
    for stage, count in enumerate(blocks):
        inner, outputs = width * 2**stage, width * 2 ** (stage + 2)
        channels += joined[stage]
        for index in range(count):
            b = f"s{stage + 2}.pathway{number}_res{index}"
            if index == 0:
                add_layer(shapes, f"{b}.branch1", f"{b}.branch1_bn", (outputs, channels, 1, 1, 1))
            add_layer(shapes, f"{b}.branch2.a", f"{b}.branch2.a_bn", (inner, channels, spans[stage], 1, 1))
            add_layer(shapes, f"{b}.branch2.b", f"{b}.branch2.b_bn", (inner, inner, 1, 3, 3))
            add_layer(shapes, f"{b}.branch2.c", f"{b}.branch2.c_bn", (outputs, inner, 1, 1, 1))
            channels = outputs
    return shapes


def slow_shapes(*, width: int, blocks: Sequence[int], at: str = "") -> Shapes:
    """Of the Slow network."""
    shapes = pathway_shapes(0, width=width, blocks=blocks, stem=1, spans=SPANS, joined=(0, 0, 0, 0))
    return {f"{at}{name}": shape for name, shape in shapes.items()}


def contrastive_shapes(network: Shapes, *, features: int, head: str) -> Shapes:
    """Trained network and momentum teacher, each with its head, and the training's own state."""
    shapes: Shapes = {"ptr": (1,), "iter": (1,), "queue_x": (4, 2)}
    for at in ("backbone.", "backbone_hist."):
        shapes |= {f"{at}{name}": shape for name, shape in network.items()}
        shapes |= {f"{at}{head}.projection.projection.0.weight": (4, features)}
    return shapes


def rhobyol_shapes(*, width: int, blocks: Sequence[int], head: str) -> Shapes:
    """Of rhoBYOL's files of a Slow network."""
    return contrastive_shapes(slow_shapes(width=width, blocks=blocks), features=32 * width, head=head)


def conv(x: Tensor, w: Mapping[str, Tensor], name: str, *, stride: int = 1, time_stride: int = 1) -> Tensor:
    """A convolution that keeps the size but for its strides, as a sum over its taps."""
    kernel = w[f"{name}.weight"]
    t, h, _ = (size // 2 for size in kernel.shape[2:])
    frames, rows, columns = x.shape[2:]
    padded = torch.nn.functional.pad(x, (h, h, h, h, t, t))
    taps = torch.zeros((), dtype=torch.float64)
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            for k in range(kernel.shape[4]):
                seen = padded[
                    :, :, i : i + frames : time_stride, j : j + rows : stride, k : k + columns : stride
                ]
                taps = taps + torch.einsum("ncthw,oc->nothw", seen, kernel[:, :, i, j, k])
    return taps


def norm(x: Tensor, w: Mapping[str, Tensor], name: str) -> Tensor:
    """Batch normalisation by the running statistics."""
    mean, var, scale, shift = (
        w[f"{name}.{part}"].view(1, -1, 1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def stem(x: Tensor, w: Mapping[str, Tensor], number: int) -> Tensor:
    """Convolution, normalisation and the maximum of 3 x 3 with stride 2."""
    at = f"s1.pathway{number}_stem"
    x = norm(conv(x, w, f"{at}.conv", stride=2), w, f"{at}.bn").clamp(min=0)
    rows, columns = x.shape[3:]
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-math.inf)
    windows = [padded[..., j : j + rows : 2, k : k + columns : 2] for j in range(3) for k in range(3)]
    return torch.stack(windows).amax(0)


def residual(x: Tensor, w: Mapping[str, Tensor], *, stage: int, number: int) -> Tensor:
    """The blocks of a stage of one pathway."""
    index = 0
    while f"s{stage}.pathway{number}_res{index}.branch2.a.weight" in w:
        b, stride = f"s{stage}.pathway{number}_res{index}", 2 if stage > 2 and index == 0 else 1
        y = norm(conv(x, w, f"{b}.branch2.a"), w, f"{b}.branch2.a_bn").clamp(min=0)
        y = norm(conv(y, w, f"{b}.branch2.b", stride=stride), w, f"{b}.branch2.b_bn").clamp(min=0)
        y = norm(conv(y, w, f"{b}.branch2.c"), w, f"{b}.branch2.c_bn")
        if index == 0:
            x = norm(conv(x, w, f"{b}.branch1", stride=stride), w, f"{b}.branch1_bn")
        x = (x + y).clamp(min=0)
        index += 1
    return x


def slow(clips: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Feature of clips by the authors' weights of one Slow network."""
    w = {name: value.double() for name, value in state.items()}
    x = stem(normalised(clips, *GREY), w, 0)
    for stage in range(2, 6):
        x = residual(x, w, stage=stage, number=0)
    return x.mean((2, 3, 4))
