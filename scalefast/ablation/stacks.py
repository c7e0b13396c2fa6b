"""Which runs of a grid are trained at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from scalefast.errors import InputError
from scalefast.training import PretrainConfig
from scalefast.training.bank.placing import free_memory
from scalefast.training.batched import at_once, pays, shape_of, stackable

if TYPE_CHECKING:
    from scalefast.features import FeatureStore

__all__ = ["Batched", "stacks_of"]

Batched = Literal["auto", "on", "off"]
"""Whether runs of one shape are trained at once: where it is faster, wherever it can be done, or never."""

_SHARE = 0.6
"""Share of the free memory that a stack may take; the rest is for the bank and the probes."""


def stacks_of(
    configs: Sequence[PretrainConfig], *, batched: Batched, store: FeatureStore, device: torch.device
) -> list[list[PretrainConfig]]:
    """The distinct configurations in the order in which they are trained, those of a list at once.

    Args:
        configs: in the order of the table, some perhaps repeated.
        batched: what is wanted.
        store: what they train on.
        device: where.

    Raises:
        InputError: no such wish.
    """
    if batched not in ("auto", "on", "off"):
        raise InputError(f"batched must be 'auto', 'on' or 'off', not {batched!r}")
    distinct = list(dict.fromkeys(configs))
    if batched == "off":
        return [[config] for config in distinct]
    sizes = {"feature_dim": store.feature_dim, "videos": len(store)}
    by_shape: dict[str, list[PretrainConfig]] = {}
    for config in distinct:
        together = stackable(config) and (batched == "on" or pays(config, **sizes, device=device.type))
        by_shape.setdefault(shape_of(config) if together else config.to_json(), []).append(config)
    free = _SHARE * free_memory(device)
    stacks = []
    for members in by_shape.values():
        most = at_once(members, **sizes, free=free)
        stacks += [members[start : start + most] for start in range(0, len(members), most)]
    return stacks
