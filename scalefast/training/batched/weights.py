"""The weights of several tasks of one shape as one matrix, and AdamW with each model's own learning rate and decay.

Shapes: `G` models, `P` trained parameters of a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from scalefast.training.schedule import decays

__all__ = ["Settings", "StackedWeights"]

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Settings(Protocol):
    """What may differ between the optimisers of a stack, as `PretrainConfig` has it."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip_grad_norm(self) -> float | None: ...


class StackedWeights:
    """A row of parameters for each model: those with weight decay first, then those without.

    The tasks' own parameters become views into their row, so that whatever saves or reads a task sees the training.

    Args:
        tasks: of one shape.
        optimizers: each task's own, whose moments are taken over (of a run that goes on) and kept up by `publish`.
        configs: learning rate, weight decay and clipping of each.
        captured: for a CUDA graph, which reads learning rates and steps on the device.
    """

    def __init__(
        self,
        tasks: Sequence[nn.Module],
        *,
        optimizers: Sequence[torch.optim.Optimizer],
        configs: Sequence[Settings],
        captured: bool = False,
    ) -> None:
        named = [(name, p) for name, p in tasks[0].named_parameters() if p.requires_grad]
        named.sort(key=lambda item: not decays(*item))
        self._names = [name for name, _ in named]
        self._shapes = [parameter.shape for _, parameter in named]
        self._sizes = [parameter.numel() for _, parameter in named]
        decayed = sum(p.numel() for name, p in named if decays(name, p))
        self._widths = [decayed, sum(self._sizes) - decayed]
        self._optimizers = optimizers
        self._parameters = [self._own(task) for task in tasks]
        self.matrix = torch.stack([_row([p.detach() for p in own]) for own in self._parameters])
        """[G, P], the leaf of every forward pass."""
        self._moments = {name: self._taken_over(name) for name in _MOMENTS}
        self._attach()
        limits = [config.clip_grad_norm for config in configs]
        self._limits = None
        if any(limit is not None for limit in limits):
            known = [float("inf") if limit is None else limit for limit in limits]
            self._limits = self.matrix.new_tensor(known)[:, None]
        self.optimizer = self._adamw(configs, captured=captured)
        self.matrix.requires_grad_()

    def views(self) -> Mapping[str, Tensor]:
        """`{name: [G, *shape]}`, differentiable."""
        parts = self.matrix.split(self._sizes, dim=1)
        shaped = zip(self._names, parts, self._shapes, strict=True)
        return {name: part.view(len(self.matrix), *shape) for name, part, shape in shaped}

    def update(self, gradient: Tensor) -> None:
        """One step of AdamW by a gradient [G, P], clipped model by model where that is asked for."""
        if self._limits is not None:  # as `nn.utils.clip_grad_norm_`
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient.mul_((self._limits / (norm + 1e-6)).clamp(max=1.0))
        for group, part in zip(self.optimizer.param_groups, self._parts(gradient), strict=True):
            group["params"][0].grad = part
        self.optimizer.step()

    def set_rates(self, rates: Sequence[float]) -> None:
        """Learning rate of each model in the coming step."""
        for group in self.optimizer.param_groups:
            rate = rates[group["model"]]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def publish(self) -> None:
        """Let each task's own optimiser hold its moments, as views, and its number of steps."""
        step = next(iter(self.optimizer.state.values()))["step"]
        for model, (own, optimizer) in enumerate(zip(self._parameters, self._optimizers, strict=True)):
            moments = {name: self._cut(moment[model]) for name, moment in self._moments.items()}
            for i, parameter in enumerate(own):
                kept = {name: parts[i] for name, parts in moments.items()}
                optimizer.state[parameter] = {"step": step.clone(), **kept}

    def changing(self) -> list[Tensor]:
        """All that a step changes, but for the random state."""
        steps = [state["step"] for state in self.optimizer.state.values()]
        return [self.matrix.detach(), *self._moments.values(), *steps]

    def _own(self, task: nn.Module) -> list[nn.Parameter]:
        there = dict(task.named_parameters())
        return [there[name] for name in self._names]

    def _taken_over(self, moment: str) -> Tensor:
        rows = []
        for own, optimizer in zip(self._parameters, self._optimizers, strict=True):
            rows.append(_row([optimizer.state[p][moment] if p in optimizer.state else 0 * p for p in own]))
        return torch.stack(rows).detach()

    def _attach(self) -> None:
        for row, own in zip(self.matrix, self._parameters, strict=True):
            for parameter, part in zip(own, self._cut(row), strict=True):
                parameter.data = part

    def _cut(self, row: Tensor) -> list[Tensor]:
        parts = row.split(self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _adamw(self, configs: Sequence[Settings], *, captured: bool) -> torch.optim.AdamW:
        """Two groups a model, each with one part of its row."""
        began = self._optimizers[0].state.get(self._parameters[0][0], {}).get("step", torch.zeros(()))
        groups, states = [], []
        for i, part in enumerate(self._parts(self.matrix)):
            model, without_decay = divmod(i, 2)
            config = configs[model]
            rate = self.matrix.new_tensor(config.learning_rate) if captured else config.learning_rate
            decay = 0.0 if without_decay else config.weight_decay
            groups.append({"params": [nn.Parameter(part)], "lr": rate, "weight_decay": decay, "model": model})
            moments = {name: self._parts(moment)[i] for name, moment in self._moments.items()}
            states.append({"step": began.to(part.device, copy=True), **moments})
        optimizer = torch.optim.AdamW(groups, fused=True, capturable=captured)
        for group, state in zip(optimizer.param_groups, states, strict=True):
            optimizer.state[group["params"][0]] = state
        return optimizer

    def _parts(self, matrix: Tensor) -> list[Tensor]:
        """Views of [G, P]: of each model what decays, then what does not."""
        return [part for row in matrix.detach() for part in row.split(self._widths)]


def _row(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
