"""rhoBYOL's files, and the Slow network that they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from released._common import normalised


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
