"""Which runs can be trained at once, and how many of them fit."""

from __future__ import annotations

import json
from collections.abc import Iterable

from scalefast.parts import TIME_MOMENTS
from scalefast.training.config import PretrainConfig

__all__ = ["VARYING", "at_once", "bytes_of", "pays", "shape_of", "stackable"]

_SMALL = 3e8
"""Multiplications of a model's step, forward, up to which stacking pays on a CPU, where it saves Python and nothing
else: of 1.2e8 eight models ran 1.6 to 1.9 times as fast, of 7.7e8 1.0 to 1.2 times (2-core EPYC, Zen 5, 2026-11-21;
benchmarks/test_grid.py)."""

VARYING = (
    "seed",
    "learning_rate",
    "weight_decay",
    "warmup_fraction",
    "clip_grad_norm",
    "dropout",
    "temperature",
    "mask_ratio",
    "mcm_weight",
    "set_weight",
    "time_weight",
    "variance_weight",
    "koleo_weight",
)
"""Fields in which runs that are trained at once may differ: none decides a shape, or what is computed, but for whether
there is a `time_weight`, which is a head more."""


def shape_of(config: PretrainConfig) -> str:
    """Equal for runs that can be trained at once."""
    fixed = {name: value for name, value in config.to_dict().items() if name not in VARYING}
    return json.dumps(fixed | {"time head": config.time_weight > 0})


def stackable(config: PretrainConfig) -> bool:
    """Whether such runs can be trained at once at all: not where a second, moving model makes the targets."""
    return config.target != "ema"


def bytes_of(config: PretrainConfig, *, feature_dim: int, videos: int) -> int:
    """Memory that one more model takes while several are trained, from above.

    Weights, gradient (twice: in parts and put together) and two moments in fp32; what the backward pass needs of every
    layer, and once more for the gradients of the largest.

    Args:
        config: the run.
        feature_dim: of the store.
        videos: in the store.
    """
    width, mlp = config.hidden_dim, config.hidden_dim * (1 + config.mlp_ratio)
    sets = 2 * min(config.batch_size, videos)
    clips, tokens = sets * config.views, sets * (config.views + 1)
    weights = _weights(config, feature_dim=feature_dim)
    layers = tokens * config.num_layers * (10 * width + 4 * mlp)
    heads = (clips + sets) * (2 * config.head_dim + 4 * config.projection_dim)
    targets = clips * (feature_dim + (4 * config.target_dim if config.target == "trained" else 0))
    logits = 2 * min(clips * clips, 1 << 22)
    return int(4 * (6 * weights + 1.5 * (layers + heads + targets + logits)))


def pays(config: PretrainConfig, *, feature_dim: int, videos: int, device: str) -> bool:
    """Whether stacked runs are expected to be faster than one after another: on GPUs, and of small models on a CPU."""
    if device == "cuda":
        return True
    clips = 2 * config.views * min(config.batch_size, videos)
    return clips * _weights(config, feature_dim=feature_dim) <= _SMALL


def _weights(config: PretrainConfig, *, feature_dim: int) -> float:
    """Weights of a task, its biases and norms aside."""
    width = config.hidden_dim
    timed = TIME_MOMENTS * width + config.projection_dim if config.time_weight else 0
    return (
        config.num_layers * width * (4 * width + 2 * width * config.mlp_ratio)
        + width * (feature_dim + 2 * width + 14)
        + config.head_dim * (2 * (width + config.projection_dim) + timed)
        + config.target_dim * (feature_dim + config.target_dim + config.projection_dim)
    )


def at_once(configs: Iterable[PretrainConfig], *, feature_dim: int, videos: int, free: float) -> int:
    """How many of these runs of one shape fit into `free` bytes, at least 1."""
    each = max(bytes_of(config, feature_dim=feature_dim, videos=videos) for config in configs)
    return max(1, int(free // each))
