"""Loading checkpoints of the authors' released SCALE code.

Names there -> names here:

    input_projection.*                  model.input_projection.*
    pos_encoding_mlp.{0,2}.*            model.position_mlp.{0,2}.*
    set_cls_token, msk_token            model.cls_token, model.mask_token      (leading 1s dropped)
    transformer.{i}.norm1.*             model.blocks.{i}.norm1.*
    transformer.{i}.attn.qkv.*          model.blocks.{i}.qkv.*
    transformer.{i}.attn.proj.*         model.blocks.{i}.projection.*
    transformer.{i}.norm2.*             model.blocks.{i}.norm2.*
    transformer.{i}.mlp.fc{1,2}.*       model.blocks.{i}.fc{1,2}.*
    norm.*                              model.norm.*
    set_head.{0,2}.weight               set_head.{0,2}.weight
    dense_target_head.{0,2,4}.weight    target_head.{0,2,4}.weight
    dense_pred_head.{0,2}.weight        prediction_head.{0,2}.weight
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scalefast.errors import DataError, InputError
from scalefast.hub import fill
from scalefast.model import HEAD_DIM, SCALE
from scalefast.pretraining import SCALEPretraining

__all__ = ["load_official", "official_name"]

_RENAMED = (
    (r"input_projection\.(weight|bias)", r"model.input_projection.\1"),
    (r"pos_encoding_mlp\.([02])\.(weight|bias)", r"model.position_mlp.\1.\2"),
    (r"set_cls_token", r"model.cls_token"),
    (r"msk_token", r"model.mask_token"),
    (r"transformer\.(\d+)\.(norm[12])\.(weight|bias)", r"model.blocks.\1.\2.\3"),
    (r"transformer\.(\d+)\.attn\.qkv\.(weight|bias)", r"model.blocks.\1.qkv.\2"),
    (r"transformer\.(\d+)\.attn\.proj\.(weight|bias)", r"model.blocks.\1.projection.\2"),
    (r"transformer\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", r"model.blocks.\1.\2.\3"),
    (r"norm\.(weight|bias)", r"model.norm.\1"),
    (r"set_head\.([02])\.weight", r"set_head.\1.weight"),
    (r"dense_target_head\.([024])\.weight", r"target_head.\1.weight"),
    (r"dense_pred_head\.([02])\.weight", r"prediction_head.\1.weight"),
)


def official_name(name: str) -> str | None:
    """Our name for a parameter of the authors' model, or None if it has no such parameter."""
    for pattern, ours in _RENAMED:
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None


def load_official(
    checkpoint: str | os.PathLike[str] | Mapping[str, Any], *, dropout: float = 0.1, temperature: float = 0.2
) -> SCALEPretraining:
    """The training task with the authors' weights, in eval mode; `.model` is the aggregator.

    Sizes follow from the weights; head dimension is 32.

    Args:
        checkpoint: a file (read with `weights_only=True`, so that it cannot run code), or a state dict; the
            weights may lie under the key `student`, and names may begin with `module.` (as DDP saves them).
        dropout, temperature: not part of the weights; the published values.

    Raises:
        InputError: no such file.
        DataError: not a checkpoint, or names or shapes do not fit (all of them are named).
    """
    source = "the state dict" if isinstance(checkpoint, Mapping) else str(checkpoint)
    state = _read(checkpoint)
    if isinstance(state.get("student"), Mapping):
        state = state["student"]
    state = {str(name).removeprefix("module."): value for name, value in state.items()}
    renamed = _rename(state, source)
    try:
        hidden, feature = renamed["model.input_projection.weight"].shape
        layers = len({name.split(".")[2] for name in renamed if name.startswith("model.blocks.")})
        ratio = renamed["model.blocks.0.fc1.weight"].shape[0] / hidden
        projection, head = renamed["set_head.2.weight"].shape
        target = renamed["target_head.0.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{source}: not a SCALE checkpoint: {error} is missing or of another shape"
        ) from error
    if hidden % HEAD_DIM:
        raise DataError(f"{source}: the width {hidden} is not a multiple of the head dimension {HEAD_DIM}")
    model = SCALE(feature, hidden_dim=hidden, num_layers=layers, mlp_ratio=ratio, dropout=dropout)
    task = SCALEPretraining(
        model, projection_dim=projection, temperature=temperature, head_dim=head, target_dim=target
    )
    fill(task, renamed, source=source)
    return task.eval()


def _read(checkpoint: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(checkpoint, Mapping):
        return checkpoint
    if not os.path.isfile(checkpoint):
        raise InputError(f"{checkpoint}: no such file; expected a checkpoint of the authors' SCALE code")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{checkpoint}: refused, since it holds more than weights ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise DataError(f"{checkpoint}: not a PyTorch checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(state, Mapping):
        raise DataError(f"{checkpoint}: expected a dictionary of weights, got {type(state).__name__}")
    return state


def _rename(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    unknown = [name for name in state if official_name(name) is None or not isinstance(state[name], Tensor)]
    if unknown:
        raise DataError(
            f"{source}: names that the authors' SCALE does not have: {', '.join(sorted(unknown))}"
        )
    renamed = {}
    for name, value in state.items():
        ours = official_name(name)
        assert ours is not None
        is_token = ours in ("model.cls_token", "model.mask_token")
        renamed[ours] = value.reshape(-1) if is_token else value
    return renamed
