"""The configurations of runs over clips: plain data, checked when made, dumped into the run folder."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from scalefast.backbones.r3d import R3DConfig
from scalefast.errors import InputError
from scalefast.video import AugmentationRecipe, cvrl_augmentation

__all__ = ["CVRLConfig", "ClipTraining"]

Precision = Literal["auto", "fp32", "bf16"]
Optimizer = Literal["sgd", "lars", "adamw"]


@dataclass(frozen=True, kw_only=True)
class ClipTraining:
    """How an encoder is trained on clips that are decoded anew in every epoch; the defaults are CVRL's.

    Raises:
        InputError: a field is out of its range; the message names field, range and value.
    """

    epochs: int = 200
    """Passes over the videos."""
    batch_size: int = 1024
    """Videos of a step, over all processes together; fewer when there are fewer."""
    optimizer: Optimizer = "sgd"
    """`"sgd"`, `"lars"` (both with momentum, L2 in the gradient) or `"adamw"` (decoupled decay)."""
    learning_rate: float = 0.32
    """Peak learning rate (CVRL: .32 for batches of 1,024; in proportion for others)."""
    weight_decay: float = 1e-6
    """None on biases, normalisations and other parameters of one dimension."""
    momentum: float = 0.9
    """Of SGD and LARS."""
    warmup_epochs: float = 5.0
    """Over which the rate rises linearly, before it falls to 0 on a cosine; at most half of all."""
    clip_grad_norm: float | None = None
    """Largest allowed norm of the whole gradient; None leaves gradients as they are."""
    precision: Precision = "auto"
    """Arithmetic of the encoder; "auto" is bf16 on GPUs and CPUs that are fast in it, else fp32."""
    chunk_clips: int | None = None
    """Clips of a process whose activations are kept at a time (gradient caching: a second forward pass, and batches
    beyond memory); None keeps all. Batch normalisation then looks at a chunk at a time."""
    seed: int = 0
    """Decides initial weights, the order of videos, clips and augmentations."""
    log_every: int = 10
    """Steps from one line of the log to the next."""
    checkpoint_every: int | None = None
    """Steps from one resume checkpoint to the next; None: about a minute. The last step is always saved."""

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 2, "seed": 0, "log_every": 1}.items():
            _check_whole(self, name, least)
        for name in ("chunk_clips", "checkpoint_every"):
            if getattr(self, name) is not None:
                _check_whole(self, name, 1)
        for name in ("learning_rate", "weight_decay", "momentum", "warmup_epochs"):
            _check_real(self, name)
        if self.clip_grad_norm is not None:
            _check_real(self, "clip_grad_norm")
        if self.learning_rate == 0 or self.momentum >= 1:
            raise InputError(
                f"expected learning_rate > 0 and momentum < 1, got {self.learning_rate} and {self.momentum}"
            )
        _check_choice(self, "precision", Precision)
        _check_choice(self, "optimizer", Optimizer)

    @property
    def warmup_fraction(self) -> float:
        """Share of the steps over which the rate rises."""
        return min(self.warmup_epochs / self.epochs, 0.5)


@dataclass(frozen=True, kw_only=True)
class CVRLConfig:
    """A CVRL run, apart from its videos. The defaults are the paper's R3D-50 on Kinetics-400.

    Raises:
        InputError: a field is out of its range.
    """

    encoder: R3DConfig = field(
        default_factory=lambda: R3DConfig(depth="50", size=224, num_frames=16, stride=2)
    )
    """The network, and the clips that it takes."""
    start: str | None = None
    """Backbone to start from instead, a name, folder or hub id as of `load_backbone`; its weights, frames, stride
    and size are taken, and `encoder` says nothing."""
    hidden_dim: int = 2048
    """Width of the head's hidden layers."""
    hidden_layers: int = 3
    """How many the head has."""
    projection_dim: int = 128
    """Dimension in which clips are compared."""
    temperature: float = 0.1
    """Of the loss."""
    interval_power: float = 1.0
    """Of the temporal interval sampler: density (1 - (k / M)^p); the smaller, the nearer the two clips."""
    views: tuple[AugmentationRecipe, AugmentationRecipe] = field(
        default_factory=lambda: (cvrl_augmentation(1), cvrl_augmentation(2))
    )
    """Augmentations of the first and of the second clip; both are cropped and mirrored as the first says."""
    training: ClipTraining = field(default_factory=ClipTraining)
    """Schedule and optimiser."""

    def __post_init__(self) -> None:
        for name, least in {"hidden_dim": 1, "hidden_layers": 0, "projection_dim": 1}.items():
            _check_whole(self, name, least)
        for name in ("temperature", "interval_power"):
            _check_real(self, name)
            if getattr(self, name) == 0:
                raise InputError(f"{name} must be above 0")

        if len(self.views) != 2:
            raise InputError(f"views must be 2 augmentations, not {len(self.views)}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CVRLConfig:
        """Inverse of `to_dict`; fields left out take their defaults.

        Raises:
            InputError: an unknown field, or a value out of range.
        """
        parts = dict(values)
        for name, part in (("encoder", R3DConfig), ("training", ClipTraining)):
            if isinstance(parts.get(name), Mapping):
                parts[name] = _made(part, parts[name], where=f"{name}.")
        if "views" in parts:
            parts["views"] = tuple(
                _made(AugmentationRecipe, _pairs_as_tuples(view), where="views.") for view in parts["views"]
            )
        return _made(cls, parts, where="")


def _pairs_as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _made(cls: Any, values: Mapping[str, Any], *, where: str) -> Any:
    known = [each.name for each in dataclasses.fields(cls)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InputError(f"unknown field {where}{unknown[0]}; known: {', '.join(known)}")
    return cls(**values)


def _check_whole(config: Any, name: str, least: int) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _check_real(config: Any, name: str) -> None:
    value = getattr(config, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0:
        raise InputError(f"{name} must be a number of at least 0, not {value!r}")
    object.__setattr__(config, name, float(value))  # so that equal configurations compare equal


def _check_choice(config: Any, name: str, choices: Any) -> None:
    if getattr(config, name) not in get_args(choices):
        raise InputError(f"{name} must be one of {get_args(choices)}, not {getattr(config, name)!r}")
