"""This process's part of the machine, under torchrun or without it."""

from __future__ import annotations

import os

__all__ = ["decoding_workers", "own_cpus", "usable_device"]


def own_cpus() -> int:
    """This process's part of the CPUs: torchrun says how many processes share the machine."""
    from scalefast.video import available_cpus

    return max(available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def decoding_workers(wanted: int | None) -> int:
    """How many processes decode: as many as --workers says, else one for each of this process's CPUs.

    Raises:
        InputError: fewer than one.
    """
    from scalefast.errors import InputError

    if wanted is not None and wanted < 1:
        raise InputError(f"--workers {wanted}: expected an integer of at least 1")
    return own_cpus() if wanted is None else wanted


def usable_device(wanted: str | None) -> str:
    """The device to compute on, if this machine has it; under torchrun each process takes a GPU of its own.

    Raises:
        InputError: the device is not usable here.
    """
    import torch

    from scalefast.errors import InputError

    own_gpu = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    name = wanted or (own_gpu if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device {name}: not usable here ({reason}); expected cpu, cuda or cuda:N"
        ) from None
    return name
