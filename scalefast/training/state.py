"""A run's task, and everything in it and its optimiser that a resumed run needs, as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scalefast.errors import DataError, DivergedError
from scalefast.hub import fill
from scalefast.model import SCALE
from scalefast.pretraining import SCALEPretraining
from scalefast.training.config import PretrainConfig

__all__ = ["build_task", "capture", "check_weights", "restore"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps for a parameter


def build_task(config: PretrainConfig, *, feature_dim: int) -> SCALEPretraining:
    """A fresh task with weights that follow from `config.seed` alone; torch's global generator is left
    as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        model = SCALE(
            feature_dim=feature_dim,
            hidden_dim=config.hidden_dim,
            num_layers=config.num_layers,
            mlp_ratio=config.mlp_ratio,
            dropout=config.dropout,
            center_sets=config.center_sets,
            position_use=config.position_use,
            calibrated=config.calibrated,
            parts=config.parts,
        )
        return SCALEPretraining(
            model,
            projection_dim=config.projection_dim,
            temperature=config.temperature,
            mask_ratio=config.mask_ratio,
            head_dim=config.head_dim,
            target_dim=config.target_dim,
            objective=config.objective,
        )


def capture(task: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights as `task/<name>` and AdamW's moments as `<moment>/<name>`; not copied."""
    tensors = {f"task/{name}": tensor for name, tensor in task.state_dict().items()}
    for name, parameter in task.named_parameters():
        for moment in _MOMENTS if parameter in optimizer.state else ():
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    return tensors


def restore(
    tensors: Mapping[str, Tensor], task: nn.Module, optimizer: torch.optim.Optimizer, *, source: str
) -> None:
    """Put back what `capture` took.

    Raises:
        DataError: names or shapes do not fit this task; `source` is how the message calls the tensors.
    """
    part = {name.removeprefix("task/"): t for name, t in tensors.items() if name.startswith("task/")}
    fill(task, part, source=source)
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:  # a fixed or moving target: the optimiser does not know it
            continue
        moments = {moment: tensors.get(f"{moment}/{name}") for moment in _MOMENTS}
        missing = [moment for moment, tensor in moments.items() if tensor is None]
        if missing:
            raise DataError(f"{source}: the optimiser's {', '.join(missing)} of {name} is missing")
        optimizer.state[parameter] = {
            moment: tensor.to(parameter.device, copy=True)
            for moment, tensor in moments.items()
            if tensor is not None
        }


def check_weights(task: nn.Module, *, step: int, last_good: str) -> None:
    """Refuse to keep weights that are NaN or infinite: the loss was finite, the last update was not.

    Raises:
        DivergedError: names the first such parameter, the step and the last good checkpoint.
    """
    named = list(task.named_parameters())
    finite = torch.stack([parameter.detach().isfinite().all() for _, parameter in named]).tolist()
    if not all(finite):
        name = named[finite.index(False)][0]
        raise DivergedError(
            f"the weights {name} are not finite after step {step}: the run stops. Last good checkpoint: "
            f"{last_good}. Try a smaller learning_rate, clip_grad_norm=1.0 or precision='fp32'."
        )
