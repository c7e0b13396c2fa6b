"""Errors that a user can act on, and the one way to ask for an optional dependency.

Every error that bad input can cause derives from `ScalefastError`; the command line prints its message
without a traceback. Internal invariants stay `assert`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "DataError",
    "DivergedError",
    "InputError",
    "MissingExtraError",
    "ScalefastError",
    "StoreError",
    "TrainingError",
    "require",
]


class ScalefastError(Exception):
    """Base of all errors that scalefast raises for its users."""


class InputError(ScalefastError, ValueError):
    """An argument, list, table or configuration is not of the expected form."""


class DataError(InputError):
    """A file's content is damaged or not what its name claims."""


class StoreError(DataError):
    """A feature store is damaged, of another version, or does not fit what is asked of it."""


class MissingExtraError(ScalefastError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class TrainingError(ScalefastError, RuntimeError):
    """Training cannot go on (a loss that is not finite, a checkpoint that cannot be written or read)."""


class DivergedError(TrainingError):
    """A loss or a weight is not finite: the configuration and the data are at fault, not the machine."""


def require(module: str, *, extra: str, needed_for: str) -> ModuleType:
    """Import an optional dependency, or say which extra installs it.

    Args:
        module: import name, for example `"av"`.
        extra: the extra of scalefast that installs it, for example `"video"`.
        needed_for: what the user was about to do, to complete "... is needed for ...".

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # the module is there, something that it imports is not: not ours to explain away
        raise MissingExtraError(
            f"the package {top!r} is needed for {needed_for}; "
            f"install it with: pip install 'scalefast[{extra}]'"
        ) from error
