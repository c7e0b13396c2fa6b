"""Loading folders of transformers, of networks for videos and for images, strictly and without pickles.

The class that `config.json` names is loaded whole, so that every weight of the file has its place and every
weight of the network its value; then the heads that make no clip feature are dropped, explicitly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from scalefast.backbones._files import check_safetensors, read_json
from scalefast.backbones.encoders import ImageEncoder, TimesformerEncoder, VideoMAEEncoder, VJEPA2Encoder
from scalefast.backbones.preprocessing import read_preprocessing
from scalefast.backbones.spec import BackboneSpec
from scalefast.errors import DataError, InputError, require

__all__ = ["load_transformers"]


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What differs between the families."""

    classes: tuple[str, ...]
    """Those that can be loaded; the first has no head and serves a config that names none."""
    since: str
    """First version of transformers that has it."""
    frames: str | None
    """Name of the number of frames in config.json; None: images, of which 16 make a clip."""
    size: str
    """Name of the size of a frame there."""
    stride: Callable[[int], int]
    """Recommended frame distance at 30 fps for a number of frames, from the authors' own evaluation."""
    build: Callable[[Any, Any], tuple[nn.Module, str]]
    """(model, config) -> (encoder, pooling in words)."""
    optional: str = r"(?!)"
    """Pattern of weights that are dropped and that published files may lack."""


def load_transformers(folder: Path, *, name: str, source: dict[str, Any]) -> tuple[nn.Module, BackboneSpec]:
    """The encoder in a folder that `save_pretrained` of transformers wrote, and what it expects.

    Args:
        folder: with config.json, model.safetensors (or several with an index) and a preprocessor's JSON.
        name: recorded as the backbone's name.
        source: recorded as where it comes from.

    Raises:
        InputError: another architecture, no safetensors or preprocessing, files that contradict each other.
        DataError: damaged files; keys missing, unexpected or of another shape, each named.
        MissingExtraError: transformers is not installed.
    """
    config_file = folder / "config.json"
    stated = read_json(config_file)
    family, class_name = _architecture(stated, config_file=config_file)
    check_safetensors(folder)
    preprocessing = read_preprocessing(folder)
    needed_for = f"loading the {class_name} in {folder}"
    transformers = require("transformers", extra="backbones", needed_for=needed_for)
    if not hasattr(transformers, class_name):
        raise InputError(
            f"{config_file}: {class_name} is not in the installed transformers {transformers.__version__}; "
            f"it came with {family.since}: pip install -U transformers"
        )
    model = _load_strictly(
        getattr(transformers, class_name), folder, transformers=transformers, optional=family.optional
    )
    config = model.config
    size = _square(getattr(config, family.size), field=family.size, config_file=config_file)
    if family.frames is None and preprocessing.size is not None:
        # networks for images resize their position embeddings; DINOv2, for one, is published at 518 pixels
        # with a crop of 224
        size = preprocessing.size
    if preprocessing.size not in (None, size):
        raise InputError(
            f"{preprocessing.file} crops to {preprocessing.size} pixels, but {config_file} states "
            f"{family.size} = {size}; one of the two belongs to another checkpoint"
        )
    encoder, pooling = family.build(model, config)
    frames = _IMAGES if family.frames is None else int(getattr(config, family.frames))
    return encoder, BackboneSpec(
        name=name,
        architecture=class_name,
        feature_dim=int(config.hidden_size),
        num_frames=frames,
        stride=family.stride(frames),
        size=size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        pooling=pooling,
        source=source,
    )


def _architecture(stated: dict[str, Any], *, config_file: Path) -> tuple[_Family, str]:
    model_type, named = stated.get("model_type"), stated.get("architectures") or []
    family = _FAMILIES.get(model_type) if isinstance(model_type, str) else None
    class_name = named[0] if named else (family.classes[0] if family else None)
    if family is None or class_name not in family.classes:
        known = ", ".join(name for each in _FAMILIES.values() for name in each.classes)
        raise InputError(
            f"{config_file}: model_type {model_type!r} with architectures {named!r} is no backbone that can "
            f"be loaded; known: {known}"
        )
    return family, class_name


def _load_strictly(cls: Any, folder: Path, *, transformers: ModuleType, optional: str) -> Any:
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        try:
            model, report = cls.from_pretrained(
                str(folder),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below by name; the library's own error has none
            )
        except Exception as error:  # whatever the library raises here, the folder is what it could not take
            raise DataError(f"{folder}: {cls.__name__} cannot be loaded: {str(error).strip()}") from error
    missing = report.get("missing_keys") or ()
    report["missing_keys"] = [key for key in missing if not re.fullmatch(optional, key)]
    problems = [
        f"{what} {_names(report.get(key) or ())}"
        for key, what in (
            ("missing_keys", "keys missing from the file:"),
            ("unexpected_keys", f"keys that {cls.__name__} does not have:"),
            ("mismatched_keys", "keys of another shape:"),
            ("error_msgs", "errors:"),
        )
        if report.get(key)
    ]
    if problems:
        raise DataError(f"{folder}: the weights do not fit config.json, {'; '.join(problems)}")
    broken = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise DataError(f"{folder}: weights that are not finite: {_names(broken)}")
    # checkpoints in half precision too: weights stay float32, autocast chooses the format of the arithmetic
    return model.float().eval()


def _names(keys: Iterable[Any]) -> str:
    """Up to 8 names, sorted; a mismatched key comes with its two shapes."""
    texts = sorted(key if isinstance(key, str) else " ".join(str(part) for part in key) for key in keys)
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return ", ".join(texts[:8]) + more


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """No progress bar and no loading report from transformers; what is wrong becomes an error here."""
    log = transformers.utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()


def _square(value: Any, *, field: str, config_file: Path) -> int:
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise InputError(f"{config_file}: {field} must be square, got {value!r}")
    return int(sides.pop())


def _videomae(model: Any, config: Any) -> tuple[nn.Module, str]:
    if not hasattr(model, "videomae"):
        return VideoMAEEncoder(model, fc_norm=None), "mean of the tokens"
    fc_norm = getattr(model, "fc_norm", None)  # the classifier, or the decoder and mask token, are dropped
    pooling = "mean of the tokens" if fc_norm is None else "mean of the tokens, then fc_norm"
    return VideoMAEEncoder(model.videomae, fc_norm=fc_norm), pooling


def _timesformer(model: Any, config: Any) -> tuple[nn.Module, str]:
    if config.attention_type == "space_only":
        raise InputError(
            "a TimeSformer with attention_type 'space_only' gives a vector a frame, not one a clip"
        )
    return TimesformerEncoder(getattr(model, "timesformer", model)), "CLS token after the final normalisation"


def _vjepa2(model: Any, config: Any) -> tuple[nn.Module, str]:
    return VJEPA2Encoder(getattr(model, "vjepa2", model).encoder), "mean of the encoder's tokens"


def _image(model: Any, config: Any) -> tuple[nn.Module, str]:
    body = getattr(model, model.base_model_prefix, model)
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return ImageEncoder(body), "CLS token of each frame after the final normalisation, mean over the frames"


_IMAGES = 16  # frames in a clip of a network for images

_FAMILIES: dict[str, _Family] = {
    "videomae": _Family(
        classes=("VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"),
        since="4.22",
        frames="num_frames",
        size="image_size",
        stride=lambda frames: 4,
        build=_videomae,
    ),
    "timesformer": _Family(
        classes=("TimesformerModel", "TimesformerForVideoClassification"),
        since="4.25",
        frames="num_frames",
        size="image_size",
        stride=lambda frames: {8: 32, 16: 16}.get(frames, 4),
        build=_timesformer,
    ),
    "vjepa2": _Family(
        classes=("VJEPA2Model", "VJEPA2ForVideoClassification"),
        since="4.53",
        frames="frames_per_clip",
        size="crop_size",
        stride=lambda frames: 4,
        build=_vjepa2,
    ),
    "vit": _Family(
        classes=("ViTModel", "ViTForImageClassification"),
        since="4.6",
        frames=None,
        size="image_size",
        stride=lambda frames: 4,
        build=_image,
        optional=r"pooler\..*",
    ),
    "dinov2": _Family(
        classes=("Dinov2Model", "Dinov2ForImageClassification"),
        since="4.31",
        frames=None,
        size="image_size",
        stride=lambda frames: 4,
        build=_image,
    ),
}
