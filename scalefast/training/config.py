"""The configuration of a pretraining run: one frozen dataclass, checked when made, strict when read.

The defaults are the paper's (SCALE, arXiv 2211.17042, as released). Recipes (`scalefast.training.recipes`)
are functions that return one of these; nothing inherits, nothing is looked up by string.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from scalefast.errors import InputError
from scalefast.model import PositionUse
from scalefast.objective import Objective, SameVideo, Target
from scalefast.parts import DEFAULT_PARTS, check_parts

__all__ = ["Precision", "PretrainConfig"]

Precision = Literal["auto", "fp32", "bf16"]

_HEAD_DIM = 32  # SCALE's attention heads are 32 wide, so the width is a multiple of it


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """What a pretraining run does, apart from the features that it is given.

    Raises:
        InputError: a field is out of its range or of the wrong type; the message names field, range and
        value.
    """

    epochs: int = 200
    """Passes over the videos (paper: 200 on Kinetics-400, 1000 on UCF101)."""

    batch_size: int = 512
    """Videos in one step, over all processes together; fewer when the store holds fewer."""

    views: int = 8
    """Clips in each of the two disjoint sets drawn from a video in a step."""

    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""

    weight_decay: float = 1e-4
    """Decoupled weight decay of AdamW; none on biases, one-dimensional parameters and learned tokens."""

    warmup_fraction: float = 0.05
    """Share of all steps over which the learning rate rises linearly, before it falls to 0 on a cosine."""

    clip_grad_norm: float | None = None
    """Largest allowed norm of the whole gradient; None (the paper) leaves gradients as they are."""

    seed: int = 0
    """Decides initial weights, batch order, view sampling, masks and dropout."""

    precision: Precision = "auto"
    """Arithmetic of the forward and backward pass; "auto" is bf16 on GPUs and CPUs that are fast in it,
    else fp32. The first 8 steps of a bf16 run are computed in fp32 (docs/performance.md)."""

    hidden_dim: int = 256
    """Width of the aggregator, a multiple of 32 (the width of an attention head)."""

    num_layers: int = 2
    """Transformer blocks of the aggregator."""

    mlp_ratio: float = 2.0
    """Width of a block's MLP as a multiple of hidden_dim."""

    dropout: float = 0.1
    """Dropout probability in the blocks, attention included."""

    projection_dim: int = 128
    """Dimension of the space in which the two contrastive losses compare."""

    head_dim: int = 4096
    """Hidden width of the two loss heads on the aggregator's outputs."""

    target_dim: int = 2048
    """Hidden width of the loss head on the backbone's features, which takes most of a step's arithmetic."""

    temperature: float = 0.2
    """Temperature of both contrastive losses."""

    mask_ratio: float = 0.25
    """Probability with which a clip is masked and has to be predicted."""

    mcm_weight: float = 0.5
    """Weight of masked clip modelling in the loss; 0 leaves it out."""

    set_weight: float = 0.5
    """Weight of set invariance of CLS in the loss; 0 leaves it out."""

    time_weight: float = 0.0
    """Weight of set invariance of the course over time in the loss, not in the paper: of *when* the refined clips
    change (docs/recipe.md); 0 leaves it out."""

    center_sets: bool = False
    """Whether the mean of a set's clips is taken from each of them before the model sees them, so that it learns from
    what changes within a video (docs/recipe.md); not in the paper."""

    calibrated: bool = False
    """Whether inputs are scaled, and the recommended representation put together, as the training store has it
    (`scalefast.calibration`); not in the paper."""

    parts: tuple[str, ...] = DEFAULT_PARTS
    """What a calibrated model's recommended representation is put together of, some of `scalefast.parts.PARTS`."""

    position_use: PositionUse = "all"
    """Which numbers of a clip's position the model sees: all seven, the two times, or none."""

    same_video: SameVideo = "negative"
    """Whether other clips of a masked clip's own video are candidates for it ("exclude": they are not)."""

    target: Target = "trained"
    """What a masked clip is predicted as: its feature through a head that is trained or fixed, or as a moving average
    ("ema") of the model refines it."""

    target_momentum: float = 0.996
    """Share of itself that this moving average keeps in a step."""

    variance_weight: float = 0.0
    """Weight of VICReg's variance and covariance terms on CLS."""

    koleo_weight: float = 0.0
    """Weight of the KoLeo term on CLS."""

    log_every: int = 10
    """Steps from one line of the log to the next; a line holds the mean over those steps."""

    checkpoint_every: int | None = None
    """Steps from one resume checkpoint to the next; None saves one about every minute. The last step is
    always saved."""

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            _check_whole(self, name, least)
        for name, bounds in _REAL.items():
            _check_real(self, name, *bounds)
        if self.hidden_dim % _HEAD_DIM:
            raise InputError(f"hidden_dim must be a multiple of {_HEAD_DIM}, not {self.hidden_dim}")
        if self.hidden_dim * self.mlp_ratio < 1:
            raise InputError(
                f"mlp_ratio {self.mlp_ratio:g} leaves nothing of the MLP's width at hidden_dim "
                f"{self.hidden_dim}"
            )
        if self.seed >= 2**63:
            raise InputError(f"seed must be below 2**63, not {self.seed}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
                raise InputError(f"{name} must be {known}, not {getattr(self, name)!r}")
        for name in ("center_sets", "calibrated"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, not {getattr(self, name)!r}")
        try:
            object.__setattr__(self, "parts", check_parts(self.parts))  # JSON has lists
        except ValueError as error:
            raise InputError(str(error)) from error
        if self.mcm_weight == self.set_weight == self.time_weight == 0:
            raise InputError(
                "mcm_weight, set_weight and time_weight are all 0: nothing is left to learn from"
            )

    @property
    def objective(self) -> Objective:
        """The part that says what is optimised."""
        return Objective(**{name: getattr(self, name) for name in Objective.names()})

    def replace(self, **changes: Any) -> PretrainConfig:
        """The same configuration with some fields changed, checked again; an unknown field is an
        `InputError`."""
        return PretrainConfig.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return dataclasses.asdict(self) | {"parts": list(self.parts)}

    def to_json(self) -> str:
        """All fields as indented JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, base: PretrainConfig | None = None) -> PretrainConfig:
        """The configuration with these fields; those left out come from `base` (default: the paper's values).

        Raises:
            InputError: an unknown field (the nearest known one is named), or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(_unknown_field(name, known))
        return dataclasses.replace(base or cls(), **values)

    @classmethod
    def from_json(
        cls, text: str, *, base: PretrainConfig | None = None, source: str = "the configuration"
    ) -> PretrainConfig:
        """Read what `to_json` wrote, or any JSON object of fields; `source` is how errors call the text.

        Raises:
            InputError: not JSON, not an object, an unknown field, or a value out of range.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{source} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise InputError(f"{source} must be a JSON object of fields, not {type(values).__name__}")
        try:
            return cls.from_dict(values, base=base)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error


_WHOLE = {
    "epochs": 1,
    "batch_size": 2,  # with one video there is nothing to contrast it with
    "views": 1,
    "seed": 0,
    "hidden_dim": _HEAD_DIM,
    "num_layers": 1,
    "projection_dim": 1,
    "head_dim": 1,
    "target_dim": 1,
    "log_every": 1,
    "checkpoint_every": 1,
}
"""Least value of every whole-numbered field."""

_REAL = {
    "learning_rate": (">", 0.0, None),
    "weight_decay": (">=", 0.0, None),
    "warmup_fraction": (">=", 0.0, 1.0),
    "clip_grad_norm": (">", 0.0, None),
    "mlp_ratio": (">", 0.0, None),
    "dropout": (">=", 0.0, 1.0),
    "temperature": (">", 0.0, None),
    "mask_ratio": (">", 0.0, 1.0),
    "mcm_weight": (">=", 0.0, None),
    "set_weight": (">=", 0.0, None),
    "time_weight": (">=", 0.0, None),
    "target_momentum": (">=", 0.0, 1.0),
    "variance_weight": (">=", 0.0, None),
    "koleo_weight": (">=", 0.0, None),
}
"""Lower bound (inclusive or not) and exclusive upper bound of every real-valued field."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "position_use": get_args(PositionUse),
    "same_video": get_args(SameVideo),
    "target": get_args(Target),
}
"""Values of every field that is one of a few words."""

_OPTIONAL = {"clip_grad_norm", "checkpoint_every"}


def _check_whole(config: PretrainConfig, name: str, least: int) -> None:
    value = getattr(config, name)
    if value is None and name in _OPTIONAL:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _check_real(config: PretrainConfig, name: str, relation: str, low: float, high: float | None) -> None:
    value = getattr(config, name)
    if value is None and name in _OPTIONAL:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    above = number and (value > low or (relation == ">=" and value == low))
    if not above or (high is not None and value >= high):
        limits = f"{relation} {low:g}" + ("" if high is None else f" and < {high:g}")
        raise InputError(f"{name} must be a number {limits}, not {value!r}")
    object.__setattr__(config, name, float(value))  # 2 and 2.0 become one form, so that equal compares equal


def _unknown_field(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known fields: {', '.join(known)}"
    return f"unknown field {name!r}{hint}"
