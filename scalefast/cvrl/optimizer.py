"""The optimisers of a run over clips, and their state as named tensors.

LARS: You et al., "Large Batch Training of Convolutional Networks" (2017, arXiv 1708.03888), with the exceptions that
contrastive training makes (arXiv 2002.05709): parameters of one dimension are neither adapted nor decayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scalefast.errors import DataError
from scalefast.hub import fill
from scalefast.training.schedule import decays

__all__ = ["LARS", "OptimizerName", "build_optimizer", "capture", "restore"]

OptimizerName = Literal["sgd", "lars", "adamw"]


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose rate is scaled, parameter by parameter, by `trust |w| / |g + wd w|`.

    Equivalent, for a parameter with gradient g:
    `d = g + wd * w; d *= trust * |w| / |d|; m = momentum * m + d; w -= lr * m`,
    without the second step in groups with `adapt=False` and where either norm is 0.

    Args:
        groups: parameter groups; each may set `weight_decay` and `adapt`.
        lr: learning rate.
        momentum: share of the last direction that is kept.
        trust: the coefficient.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.9, trust: float = 0.001
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0, "adapt": True}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; waits for no device."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            for weight in (p for p in group["params"] if p.grad is not None):
                direction = weight.grad.add(weight, alpha=group["weight_decay"])
                if group["adapt"]:
                    direction.mul_(_ratio(weight, direction, trust=group["trust"]))
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
                weight.sub_(state["momentum_buffer"] * group["lr"])
        return value


def _ratio(weight: Tensor, direction: Tensor, *, trust: float) -> Tensor:
    size, slope = weight.norm(), direction.norm()
    return torch.where((size > 0) & (slope > 0), trust * size / slope, torch.ones_like(size))


def build_optimizer(
    module: nn.Module, *, name: OptimizerName, learning_rate: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters, with and without weight decay (and LARS's adaptation).

    `weight_decay` is added to the gradient as L2 by SGD and LARS, and decoupled in AdamW.
    """
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0, "adapt": False},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "lars":
        return LARS(groups, lr=learning_rate, momentum=momentum)
    for group in groups:
        group.pop("adapt", None)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


def capture(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights as `weight/<name>` and the optimiser's state as `optimizer/<key>/<name>`; not copied."""
    tensors = {f"weight/{name}": tensor for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{key}/{name}"] = value
    return tensors


def restore(
    tensors: Mapping[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer, *, source: str
) -> None:
    """Put back what `capture` took.

    Raises:
        DataError: names or shapes do not fit; `source` is how the message calls the tensors.
    """
    part = {name.removeprefix("weight/"): t for name, t in tensors.items() if name.startswith("weight/")}
    fill(module, part, source=source)
    parameters = dict(module.named_parameters())
    for name, tensor in tensors.items():
        if not name.startswith("optimizer/"):
            continue
        _, key, owner = name.split("/", 2)
        parameter = parameters.get(owner)
        if parameter is None or (tensor.ndim and tensor.shape != parameter.shape):
            raise DataError(
                f"{source}: the optimiser's {key} of {owner} fits no weight of {type(module).__name__}"
            )
        optimizer.state[parameter][key] = (
            tensor.to(parameter.device, copy=True) if tensor.ndim else tensor.clone()
        )
