"""A trained encoder of any kind as a backbone folder, which `load_backbone` reads.

An `R3D` is written as `r3d_folder.py` says. Of the others `config.json` holds `scalefast_backbone` ("encoder"),
`format_version`, `network` (its class and dimensions), `spec` (the clips that it takes), `source` and `weights_hash`;
`model.safetensors` its weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from scalefast._files import write_atomically
from scalefast.backbones._files import WEIGHTS, check_safetensors, load_tensors, read_json
from scalefast.backbones._weights import hash_state_dict
from scalefast.backbones.encoders import ImageEncoder, TimesformerEncoder, VideoMAEEncoder, VJEPA2Encoder
from scalefast.backbones.r3d import R3D
from scalefast.backbones.r3d_folder import MARK, same_keys, write_r3d
from scalefast.backbones.slow import SlowR50
from scalefast.backbones.slowfast import SlowFastR50
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import DataError, InputError, require
from scalefast.hub import fill

__all__ = ["load_encoder", "write_backbone"]

_VERSION = 1
_FIELDS = {MARK, "format_version", "network", "spec", "source", "weights_hash"}
_SPEC = ("architecture", "feature_dim", "num_frames", "stride", "size", "mean", "std", "pooling")
_POSITIONS = "position_embeddings"  # VideoMAE's fixed table, which is no weight and may have been resized
# networks of our own, and the names of the dimensions that make one
_OWN: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "SlowR50": (SlowR50, ("width", "blocks")),
    "SlowFastR50": (SlowFastR50, ("width", "blocks", "alpha", "span")),
}
# encoder -> transformers' configuration and model, by model_type
_MODELS: dict[str, dict[str, tuple[str, str]]] = {
    "VideoMAEEncoder": {"videomae": ("VideoMAEConfig", "VideoMAEModel")},
    "TimesformerEncoder": {"timesformer": ("TimesformerConfig", "TimesformerModel")},
    "VJEPA2Encoder": {"vjepa2": ("VJEPA2Config", "VJEPA2Model")},
    "ImageEncoder": {"vit": ("ViTConfig", "ViTModel"), "dinov2": ("Dinov2Config", "Dinov2Model")},
}


def write_backbone(
    encoder: nn.Module, spec: BackboneSpec, folder: Path, *, source: Mapping[str, Any]
) -> None:
    """Write `config.json` and `model.safetensors` into a folder, such as that of a run; old ones are replaced.

    Args:
        encoder: an `R3D`, or the encoder of a backbone that `load_backbone` gave.
        spec: what it expects and yields.
        folder: exists.
        source: where the weights come from, JSON-able.

    Raises:
        InputError: an encoder of another class.
        OSError: a file cannot be written. `config.json` comes last, so that a folder that has it is whole.
    """
    if isinstance(encoder, R3D):
        write_r3d(encoder, folder, source=source)
        return
    network = _network(encoder)
    state = {name: tensor.detach().to("cpu").contiguous() for name, tensor in encoder.state_dict().items()}
    if isinstance(encoder, VideoMAEEncoder):
        state[_POSITIONS] = encoder.model.embeddings.position_embeddings.detach().to("cpu").contiguous()
    header = {
        MARK: "encoder",
        "format_version": _VERSION,
        "network": network,
        "spec": {name: getattr(spec, name) for name in _SPEC},
        "source": dict(source),
        "weights_hash": hash_state_dict(state),
    }
    (folder / "config.json").unlink(missing_ok=True)
    write_atomically(folder / WEIGHTS, save(state))
    write_atomically(folder / "config.json", (json.dumps(header, indent=2) + "\n").encode())


def load_encoder(folder: Path, *, name: str) -> tuple[nn.Module, BackboneSpec]:
    """Read what `write_backbone` wrote of an encoder that is no R3D.

    Raises:
        InputError: another version of the format.
        DataError: damaged, or config and weights contradict each other (each key named).
        MissingExtraError: transformers is needed and not installed.
    """
    config_file = folder / "config.json"
    header = read_json(config_file)
    if header.get("format_version") != _VERSION:
        raise InputError(
            f"{config_file}: format_version {header.get('format_version')!r} cannot be read; "
            f"this scalefast reads version {_VERSION}"
        )
    same_keys(header, _FIELDS, what=str(config_file))
    (weights_file,) = check_safetensors(folder)
    state = load_tensors(weights_file)
    found = hash_state_dict(state)
    if found != header["weights_hash"]:
        raise DataError(
            f"{weights_file}: weights hash {found} is not the one in config.json, {header['weights_hash']}"
        )
    try:
        encoder = _built(header["network"], needed_for=f"loading {folder}")
        spec = BackboneSpec(name=name, source=header["source"], **header["spec"])
    except (
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
    ) as error:  # whatever nonsense makes a constructor raise
        raise DataError(f"{config_file}: describes no encoder ({error})") from error
    if isinstance(encoder, VideoMAEEncoder):
        if _POSITIONS not in state:
            raise DataError(f"{weights_file}: missing {_POSITIONS}")
        encoder.model.embeddings.position_embeddings = state.pop(_POSITIONS)
    fill(encoder, state, source=str(weights_file))
    return encoder.eval(), spec


def _network(encoder: nn.Module) -> dict[str, Any]:
    kind = type(encoder).__name__
    if isinstance(encoder, (SlowR50, SlowFastR50)):
        return {"encoder": kind, **encoder.dimensions}
    if kind not in _MODELS:
        raise InputError(
            f"a {kind} cannot be saved as a backbone; known: R3D, {', '.join([*_OWN, *_MODELS])}"
        )
    stated = json.loads(encoder.model.config.to_json_string(use_diff=False))  # type: ignore[union-attr, operator]
    norm = getattr(encoder, "fc_norm", None)
    return {"encoder": kind, "config": stated, "fc_norm": None if norm is None else norm.eps}


def _built(network: Mapping[str, Any], *, needed_for: str) -> nn.Module:
    """The encoder with initial weights; torch's generator is left as it was."""
    kind = network["encoder"]
    if kind in _OWN:
        network_class, dimensions = _OWN[kind]
        return network_class(**{name: network[name] for name in dimensions})
    stated = network["config"]
    names = _MODELS.get(kind, {}).get(stated["model_type"])
    if names is None:
        raise InputError(f"a {kind} of model_type {stated['model_type']!r}")
    transformers = require("transformers", extra="backbones", needed_for=needed_for)
    config = getattr(transformers, names[0]).from_dict(stated)
    model_class = getattr(transformers, names[1])
    with torch.random.fork_rng(devices=[]):
        if kind == "VideoMAEEncoder":
            return _videomae(model_class, config, fc_norm=network["fc_norm"])
        if kind == "VJEPA2Encoder":
            return VJEPA2Encoder(model_class(config).encoder)
        if kind == "TimesformerEncoder":
            return TimesformerEncoder(model_class(config))
        options = {"add_pooling_layer": False} if stated["model_type"] == "vit" else {}
        return ImageEncoder(model_class(config, **options))


def _videomae(model_class: Any, config: Any, *, fc_norm: float | None) -> VideoMAEEncoder:
    frames, config.num_frames = config.num_frames, config.tubelet_size  # its own table takes seconds
    model = model_class(config)
    config.num_frames = frames
    norm = nn.LayerNorm(config.hidden_size, eps=fc_norm) if fc_norm else None
    return VideoMAEEncoder(model, fc_norm=norm)
