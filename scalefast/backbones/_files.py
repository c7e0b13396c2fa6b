"""Reading the small JSON files and the safetensors of a backbone folder, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from scalefast.errors import DataError, InputError

__all__ = ["check_safetensors", "load_tensors", "read_json"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: the file cannot be read or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON file, {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object {{...}}, found {type(value).__name__}")
    return value


def check_safetensors(folder: Path) -> list[Path]:
    """The weight files of a folder: one, or those that an index names; each is there and has a sound header.

    Raises:
        InputError: no safetensors (weights in pickled files are not loaded: a pickle can run code).
        DataError: a file that the index names is missing, or one is damaged.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        files = [folder / WEIGHTS]
    elif index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise DataError(f"{index}: expected a 'weight_map' of tensor names to files")
        files = [folder / str(name) for name in sorted(set(names.values()))]
    else:
        raise InputError(_no_weights(folder))
    for path in files:
        if path.parent != folder or not path.is_file():
            raise DataError(f"{index} names {path.name!r}, which is not in {folder}")
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: not a complete safetensors file ({error})") from error
    return files


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a complete safetensors file ({error})") from error


def _no_weights(folder: Path) -> str:
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if not pickles:
        return f"{folder}: no weights; expected {WEIGHTS}, or {INDEX} with the files that it names"
    return (
        f"{folder}: expected {WEIGHTS}, found only {', '.join(pickles)}: a pickle can run code when "
        "it is read, so it is not loaded; convert it once where you trust it: model.save_pretrained(folder)"
    )
