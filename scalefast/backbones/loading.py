"""`load_backbone`: from a name, a folder or a hub id to a frozen clip encoder."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scalefast._precision import Precision
from scalefast.backbones._files import read_json
from scalefast.backbones._hub import fetch, is_hub_id
from scalefast.backbones.backbone import FrozenBackbone
from scalefast.backbones.geometry import fit_to
from scalefast.backbones.huggingface import load_transformers
from scalefast.backbones.r3d import R3D
from scalefast.backbones.r3d_folder import MARK, load_r3d
from scalefast.backbones.registry import REGISTRY, NamedBackbone
from scalefast.backbones.saved import load_encoder
from scalefast.backbones.spec import BackboneSpec
from scalefast.backbones.timm_images import PREFIX, load_timm
from scalefast.errors import InputError

__all__ = ["load_backbone"]


def load_backbone(
    name_or_folder_or_hub_id: str | Path,
    checkpoint: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | Precision | None = None,
    *,
    num_frames: int | None = None,
    size: int | None = None,
) -> FrozenBackbone:
    """A frozen clip encoder: `backbone(clips uint8 [N, T, H, W, 3]) -> float32 [N, D]`.

    Args:
        name_or_folder_or_hub_id: a short name (`"r3d-tiny"`, `"videomae-b"`, ...), else a folder
            (transformers' layout or one that `save_r3d` wrote), else a hub id `organisation/name[@revision]`.
            `timm/NAME` is a network of timm, applied to each frame. A short name wins over a folder of that name in
            the working directory; write `./name` for the folder.
        checkpoint: the file that the authors of a named backbone released, in their own layout (read with
            `weights_only=True`, strictly); the name says which network it is.
        device: where to compute; None is the CPU.
        dtype: `"fp32"`, `"bf16"`, `"fp16"` or the torch.dtype; None takes bf16 where the hardware has it,
            else fp32.
        num_frames: T, frames in a clip, where other than the network's own; positions are resized
            (`scalefast/backbones/geometry.py` says how).
        size: height and width of a frame in pixels, likewise.

    Raises:
        InputError: unknown name, a folder that holds no backbone, a hub that cannot be reached, a length or
            size that the network cannot take.
        DataError: damaged files, a checkpoint that holds more than weights, or weights that do not fit their
            configuration (each key named).
        MissingExtraError: transformers is needed and not installed.
    """
    name = str(name_or_folder_or_hub_id)
    entry = REGISTRY.get(name)
    if checkpoint is not None:
        encoder, spec = _from_checkpoint(name, entry, Path(checkpoint))
    elif entry is not None and entry.r3d is not None:
        encoder, spec = _described(R3D(entry.r3d), name=name)
    elif entry is not None and entry.hub_id is None:
        raise InputError(
            f"backbone {name!r} exists only as its authors' file: pass checkpoint=file, or --checkpoint FILE"
        )
    elif entry is not None:
        assert entry.hub_id is not None
        encoder, spec = _from_hub(entry.hub_id)
    elif Path(name).is_dir():
        folder = Path(name)
        encoder, spec = _from_folder(folder, name=folder.resolve().name, source={"kind": "folder"})
    elif name.startswith(PREFIX) and not Path(name).exists():
        encoder, spec = load_timm(name)
    elif is_hub_id(name) and not Path(name).exists():
        encoder, spec = _from_hub(name)
    else:
        raise InputError(_unknown(name))
    spec = fit_to(encoder, spec, num_frames=num_frames, size=size)
    return FrozenBackbone(encoder, spec=spec, device=device, dtype=dtype)


def _from_checkpoint(name: str, entry: NamedBackbone | None, file: Path) -> tuple[nn.Module, BackboneSpec]:
    if entry is None or entry.checkpoint is None:
        known = ", ".join(each for each, named in REGISTRY.items() if named.checkpoint is not None)
        raise InputError(
            f"backbone {name!r} has no checkpoint file in a layout of its own, so that {file} cannot be read "
            f"as one; names that have: {known}"
        )
    return entry.checkpoint.load(file, name=name)


def _from_hub(hub_id: str) -> tuple[nn.Module, BackboneSpec]:
    folder, revision = fetch(hub_id)
    name = hub_id.partition("@")[0]
    return _from_folder(folder, name=name, source={"kind": "hub", "id": name, "revision": revision})


def _from_folder(folder: Path, *, name: str, source: dict[str, Any]) -> tuple[nn.Module, BackboneSpec]:
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise InputError(
            f"{folder} holds no backbone: expected config.json and model.safetensors, as save_pretrained of "
            "transformers or scalefast.backbones.save_r3d write them"
        )
    header = read_json(config_file)
    if header.get(MARK) == "encoder":
        return load_encoder(folder, name=name)
    if MARK in header:
        return _described(load_r3d(folder), name=name)
    return load_transformers(folder, name=name, source=source)


def _described(model: R3D, *, name: str) -> tuple[nn.Module, BackboneSpec]:
    return model, model.spec(name)


def _unknown(name: str) -> str:
    if Path(name).is_file():
        return (
            f"{name} is a file; expected a folder with config.json and model.safetensors, a name or a hub id"
        )
    close = difflib.get_close_matches(name, REGISTRY, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    return (
        f"no backbone, folder or hub id is named {name!r}{hint} Known names: {', '.join(REGISTRY)}; "
        "a hub id has the form organisation/name"
    )
