"""Which runs can be trained at once, and how many of them fit."""

from __future__ import annotations

import json
from collections.abc import Iterable

from scalefast.kernels import default_capacity
from scalefast.parts import TIME_MOMENTS
from scalefast.training.batched.contrast import DENSE
from scalefast.training.config import PretrainConfig

__all__ = ["VARYING", "at_once", "bytes_of", "pays", "shape_of", "stackable"]

_SMALL = 3e8
"""Multiplications of a model's step, forward, up to which stacking pays on a CPU, where it saves Python and nothing
else: of 1.2e8 eight models ran 1.6 to 1.9 times as fast, of 7.7e8 1.0 to 1.2 times (2-core EPYC, Zen 5, 2026-11-21;
benchmarks/test_grid.py)."""

_SESSION = 1 << 21
"""Bytes of a run beside its tensors: log, plan, optimiser."""

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
    """Memory that one more model takes while several are trained, from above, whichever of two moments takes more.

    Within the backward pass: weights, two moments, some gradients, and what was kept of every layer. After it: weights,
    moments and the gradient, in parts and put together. The factors are these counts and what an allocator cannot use
    again, as measured (docs/ablation.md). In fp32, in which bf16 runs begin too.

    Args:
        config: the run.
        feature_dim: of the store.
        videos: in the store.
    """
    target = _target_weights(config, feature_dim=feature_dim)
    fixed = target if config.target == "fixed" else 0
    trained = _weights(config, feature_dim=feature_dim) - fixed
    kept = _activations(config, feature_dim=feature_dim, videos=videos)
    return _SESSION + int(4 * (fixed + max(10 * trained, 4 * trained + 1.75 * kept)))


def _activations(config: PretrainConfig, *, feature_dim: int, videos: int) -> float:
    """Numbers of one model that the backward pass needs, or has while it needs them."""
    width, projection = config.hidden_dim, config.projection_dim
    sets = 2 * min(config.batch_size, videos)
    clips, tokens = sets * config.views, sets * (config.views + 1)
    masked = default_capacity(clips, probability=config.mask_ratio)
    head = 2 * config.head_dim + 3 * projection
    together = config.mask_ratio * clips**2 <= DENSE  # else logits are computed one model after another
    return (
        clips * (feature_dim + 3 * width)
        + tokens * width * (2 + config.num_layers * (10 + 3 * config.mlp_ratio))
        + masked * (width + head)
        + sets * (head + (TIME_MOMENTS * width + head if config.time_weight else 0))
        + clips * (3 * projection + (4 * config.target_dim if config.target == "trained" else 0))
        + (3 * min(masked * clips, DENSE) if together else 0)
    )


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
        + _target_weights(config, feature_dim=feature_dim)
    )


def _target_weights(config: PretrainConfig, *, feature_dim: int) -> int:
    return config.target_dim * (feature_dim + config.target_dim + config.projection_dim)


def at_once(configs: Iterable[PretrainConfig], *, feature_dim: int, videos: int, free: float) -> int:
    """How many of these runs of one shape fit into `free` bytes, at least 1."""
    each = max(bytes_of(config, feature_dim=feature_dim, videos=videos) for config in configs)
    return max(1, int(free // each))
