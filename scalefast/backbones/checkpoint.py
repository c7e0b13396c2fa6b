"""Reading checkpoint files in their authors' own layouts: no code is run, and every name is accounted for.

A layout lists each weight of the network under its authors' name. A file must hold all of them, in the
expected shapes, and beside them nothing but what the layout names as dropped (decoders, classifiers, queues).
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import DataError, InputError

__all__ = ["CheckpointFormat", "Layout", "fill", "read_checkpoint", "section", "shorten"]


class CheckpointFormat(Protocol):
    """A network of known dimensions whose authors released a file."""

    def load(self, file: Path, *, name: str) -> tuple[nn.Module, BackboneSpec]:
        """The encoder with the weights of `file`, and what it expects; `name` is recorded."""

    def spec(self, *, name: str, source: Mapping[str, Any] | None = None) -> BackboneSpec:
        """What the network expects and yields."""

    def build(self, *, needed_for: str) -> nn.Module:
        """The network without weights, on the meta device; `needed_for` completes "transformers is needed for"."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each weight of a network lies in its authors' file."""

    network: str
    """Which network and which of its files, for errors."""
    names: Mapping[str, tuple[str, ...]]
    """Authors' name -> our name; several of ours share one tensor of theirs, cut along its first axis."""
    dropped: Sequence[str] = ()
    """Patterns of names that make no clip feature and may be there (whole names, regular expressions)."""


def read_checkpoint(file: Path) -> Mapping[str, Any]:
    """The dictionary in a file that `torch.save` wrote, on the CPU.

    It is read with `weights_only=True`, which refuses every pickle that would call a function. The one class
    admitted beside PyTorch's own is `argparse.Namespace`, a plain record in which training scripts keep their
    options.

    Raises:
        InputError: no such file.
        DataError: it holds more than weights, is damaged, or is no dictionary.
    """
    if not os.path.isfile(file):
        raise InputError(f"{file}: no such file; expected a checkpoint file that the authors released")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global) ([\w.]+\.[\w.]+)", str(error))
        raise DataError(
            f"{file}: refused, since it is damaged or holds more than weights"
            f"{f' ({found[1]})' if found else ''}, and a pickle can run code when it is read; where you trust "
            "it, keep only its weights: "
            "torch.save({'model': torch.load(old, weights_only=False)['model']}, new), with its own key"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise DataError(f"{file}: not a complete PyTorch checkpoint ({reason})") from error
    if not isinstance(state, Mapping):
        raise DataError(f"{file}: expected a dictionary of weights, found {type(state).__name__}")
    return state


def section(state: Mapping[str, Any], key: str, *, file: Path) -> dict[str, Any]:
    """The dictionary under `key`; `module.`, which data-parallel training puts before each name, is removed.

    Raises:
        DataError: there is none.
    """
    part = state.get(key)
    if not isinstance(part, Mapping):
        found = type(part).__name__ if key in state else f"only {shorten(state) or 'an empty one'}"
        raise DataError(f"{file}: expected a dictionary of weights under {key!r}, found {found}")
    return {str(name).removeprefix("module."): value for name, value in part.items()}


def fill(model: nn.Module, state: Mapping[str, Any], layout: Layout, *, file: Path) -> None:
    """Give `model` (built on the meta device) the weights in `state`, as float32.

    Args:
        model: every entry of its state dict is in `layout.names`, counters of batches apart.
        state: authors' names -> tensors.
        file: for errors.

    Raises:
        DataError: names missing or unknown, values that are no tensors, of other shapes or not finite; each named.
    """
    # batch normalisation counts its batches, which decides nothing in eval mode and is not in every file
    counters = {name for name in model.state_dict() if name.endswith("num_batches_tracked")}
    shapes = {name: value.shape for name, value in model.state_dict().items() if name not in counters}
    ours = [name for names in layout.names.values() for name in names]
    assert sorted(ours) == sorted(shapes), set(ours) ^ set(shapes)
    known = [name for name in layout.names if name in state]
    if not known:
        found = shorten(state) or "nothing"
        raise DataError(
            f"{file} is no checkpoint of {layout.network}: none of its names is there, found {found}"
        )
    wrong = [name for name in known if not isinstance(state[name], Tensor)]
    mismatched, broken = [], []
    weights: dict[str, Tensor] = {}
    for name in (name for name in known if name not in wrong):
        parts = layout.names[name]
        first, *rest = shapes[parts[0]]
        expected = (first * len(parts), *rest) if parts[1:] else tuple(shapes[parts[0]])
        value = state[name]
        if tuple(value.shape) != expected:
            mismatched.append(f"{name} {list(value.shape)} in place of {list(expected)}")
            continue
        if not torch.isfinite(value).all():
            broken.append(name)
        pieces = value.chunk(len(parts)) if parts[1:] else (value,)
        # copies, so that a large file's other tensors are not kept alive and no two weights share memory
        weights.update((part, piece.float().clone()) for part, piece in zip(parts, pieces, strict=True))
    missing = [name for name in layout.names if name not in state]
    unknown = [name for name in state if name not in layout.names and not _matches(name, layout.dropped)]
    listed = {
        "missing": missing,
        "names that it does not have": unknown,
        "no tensors": wrong,
        "of another shape": mismatched,
        "not finite": broken,
    }
    problems = [f"{what}: {shorten(names)}" for what, names in listed.items() if names]
    if problems:
        raise DataError(f"{file} does not fit {layout.network}; {'; '.join(problems)}")
    weights.update((name, torch.tensor(0)) for name in counters)
    model.load_state_dict(weights, strict=True, assign=True)


def shorten(names: Iterable[str]) -> str:
    """Up to 8 names in their order, and how many more there are."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
