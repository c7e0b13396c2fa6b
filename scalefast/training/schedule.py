"""The learning rate as a function of the step, and AdamW with weight decay where it belongs."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["build_optimizer", "decays", "learning_rate_at", "set_learning_rate"]


def learning_rate_at(step: int, *, total_steps: int, peak: float, warmup_fraction: float) -> float:
    """Learning rate of the 0-based `step`: a linear rise to `peak`, then half a cosine to 0.

    With `W = round(warmup_fraction * total_steps)` it is `peak * (step + 1) / W` for `step < W` and
    `peak / 2 * (1 + cos(pi * (step - W) / (total_steps - W)))` after; no step has rate 0, neither the first
    nor the last.
    """
    warmup = round(warmup_fraction * total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1.0 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to biases, norms and other one-dimensional parameters, nor to
    learned tokens."""
    leaf = name.rpartition(".")[2]
    return parameter.ndim > 1 and not leaf.endswith(("bias", "token"))


def build_optimizer(
    task: nn.Module, *, learning_rate: float, weight_decay: float, captured: bool = False
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `task` in two groups, with and without weight decay.

    One fused kernel updates all parameters of a group, on CPU and CUDA; a parameter's state depends on it
    alone. `captured`: for a CUDA graph, which reads the learning rate and the number of steps on the device.
    """
    named = [(name, parameter) for name, parameter in task.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not captured:
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    rate = torch.tensor(learning_rate, device=named[0][1].device)
    return torch.optim.AdamW(groups, lr=rate, fused=True, capturable=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give all groups of the optimizer this rate for the coming step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
