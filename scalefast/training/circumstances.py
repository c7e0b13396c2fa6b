"""What has to be the same for the sums of a resumed run to come out the same to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scalefast import kernels
from scalefast._version import __version__
from scalefast.training.distributed import World

__all__ = ["changed_since", "circumstances"]


def circumstances(world: World) -> dict[str, Any]:
    """Of this run, now. JSON values, kept in every checkpoint."""
    device = world.device
    return {
        "scalefast": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "ops": {op: how.implementation for op, how in kernels.backend(device).items()},
    }


def changed_since(before: Mapping[str, Any], world: World) -> str | None:
    """A sentence on what differs from the circumstances of a checkpoint; None if nothing does."""
    changed = [
        f"{name} {before.get(name)!r} before, {value!r} now"
        for name, value in circumstances(world).items()
        if before.get(name) != value
    ]
    return f"not identical to the bit to an uninterrupted run: {'; '.join(changed)}" if changed else None
