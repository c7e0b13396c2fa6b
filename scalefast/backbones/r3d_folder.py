"""An R3D in a folder: `config.json` and `model.safetensors`, written whole or not at all, read strictly.

`config.json` holds `scalefast_backbone` ("r3d"), `format_version`, `architecture` (every field of
`R3DConfig`), `source` (where the weights come from) and `weights_hash`, so that files of two backbones in one
folder are noticed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file

from scalefast._files import write_atomically
from scalefast.backbones._files import WEIGHTS, check_safetensors, load_tensors, read_json
from scalefast.backbones._weights import hash_state_dict
from scalefast.backbones.r3d import R3D, R3DConfig
from scalefast.errors import DataError, InputError, ScalefastError

__all__ = ["MARK", "load_r3d", "same_keys", "save_r3d", "write_r3d"]

MARK = "scalefast_backbone"
_VERSION = 1
_FIELDS = {MARK, "format_version", "architecture", "source", "weights_hash"}


def save_r3d(model: R3D, folder: str | Path, *, source: Mapping[str, Any] | None = None) -> None:
    """Write `model` into a new folder, from which `load_r3d` and `load_backbone` read it.

    Both files are written and synced in a temporary folder beside it, which then takes the name: after a
    crash or on a full disk there is either the whole folder or none.

    Args:
        model: weights on any device.
        folder: must not exist, or be empty.
        source: where the weights come from (JSON-able); None keeps `model.source`.

    Raises:
        InputError: the folder holds something already.
        ScalefastError: it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already; a backbone is saved into a new folder")
    header, state = _content(model, source)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        temporary.chmod(0o755)  # mkdtemp's own is for its owner alone
        (temporary / "config.json").write_bytes(header)
        save_file(state, temporary / WEIGHTS)
        for path in (temporary / "config.json", temporary / WEIGHTS, temporary):
            _sync(path)
        os.replace(temporary, folder)
        _sync(folder.parent)
    except OSError as error:
        raise ScalefastError(f"cannot write the backbone to {folder}: {error}") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary)


def write_r3d(model: R3D, folder: Path, *, source: Mapping[str, Any]) -> None:
    """The same two files in a folder that holds other things too, such as that of a run; old ones are replaced.

    Raises:
        OSError: one cannot be written. `config.json` comes last, so that a folder that has it is whole.
    """
    header, state = _content(model, source)
    (folder / "config.json").unlink(missing_ok=True)
    write_atomically(folder / WEIGHTS, save(state))
    write_atomically(folder / "config.json", header)


def _content(model: R3D, source: Mapping[str, Any] | None) -> tuple[bytes, dict[str, torch.Tensor]]:
    """config.json, and the tensors."""
    state = {name: tensor.detach().to("cpu").contiguous() for name, tensor in model.state_dict().items()}
    header = {
        MARK: "r3d",
        "format_version": _VERSION,
        "architecture": model.to_config(),
        "source": dict(source) if source is not None else model.source,
        "weights_hash": hash_state_dict(state),
    }
    return (json.dumps(header, indent=2) + "\n").encode(), state


def load_r3d(folder: str | Path) -> R3D:
    """Read what `save_r3d` wrote.

    Raises:
        InputError: not such a folder, or of another version.
        DataError: damaged; config and weights contradict each other (each key named).
    """
    folder = Path(folder)
    config_file = folder / "config.json"
    header = read_json(config_file)
    if header.get(MARK) != "r3d":
        raise InputError(f'{config_file}: expected "{MARK}": "r3d", found {header.get(MARK)!r}')
    if header.get("format_version") != _VERSION:
        raise InputError(
            f"{config_file}: format_version {header.get('format_version')!r} cannot be read; "
            f"this scalefast reads version {_VERSION}"
        )
    same_keys(header, _FIELDS, what=str(config_file))
    architecture, source = header["architecture"], header["source"]
    if not isinstance(architecture, dict) or not isinstance(source, dict):
        raise DataError(f"{config_file}: 'architecture' and 'source' must be JSON objects")
    same_keys(
        architecture, {f.name for f in dataclasses.fields(R3DConfig)}, what=f"{config_file}: architecture"
    )
    try:
        config = R3DConfig(**architecture)
    except InputError as error:
        raise DataError(f"{config_file}: {error}") from error
    model = R3D(config, source=source, initialise=False)
    (weights_file,) = check_safetensors(folder)
    state = load_tensors(weights_file)
    _check_state(state, model.state_dict(), weights_file=weights_file)
    found = hash_state_dict(state)
    if found != header["weights_hash"]:
        raise DataError(
            f"{weights_file}: weights hash {found} is not the one in config.json, {header['weights_hash']}"
        )
    model.load_state_dict(state)
    return model


def _check_state(
    state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], *, weights_file: Path
) -> None:
    same_keys(state, set(expected), what=str(weights_file))
    for name, tensor in expected.items():
        here = (list(state[name].shape), state[name].dtype)
        there = (list(tensor.shape), tensor.dtype)
        if here != there:
            raise DataError(
                f"{weights_file}: {name} is {here[0]} {here[1]}, config.json makes it {there[0]} {there[1]}"
            )


def same_keys(found: Mapping[str, Any], expected: set[str], *, what: str) -> None:
    """A DataError that names `what` and every key that is missing or unknown, if there are any."""
    missing, unknown = sorted(expected - set(found)), sorted(set(found) - expected)
    if missing or unknown:
        parts = [
            f"{label} {', '.join(keys)}"
            for label, keys in (("missing", missing), ("unknown", unknown))
            if keys
        ]
        raise DataError(f"{what}: {'; '.join(parts)}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
