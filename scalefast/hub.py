"""Saving and loading a model the way the Hugging Face hub does, but strictly.

A folder holds `config.json` and `model.safetensors`. Unlike `PyTorchModelHubMixin` (huggingface_hub), loading
refuses missing and unknown keys, in the weights and in the configuration, and never reads a pickle.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from scalefast._files import write_atomically
from scalefast._version import __version__
from scalefast.errors import DataError, InputError

__all__ = [
    "CONFIG_NAME",
    "WEIGHTS_NAME",
    "HubModel",
    "fill",
    "load_weights",
    "save_weights",
]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = {".safetensors", ".json", ".pt", ".pth", ".ckpt", ".bin", ".npz", ".store", ".csv"}
"""A name that ends so is a file of the user's; other dots are frequent in the names of repositories (v1.5)."""
_PATIENCE = 5.0
"""Seconds that the hub has to answer at all."""


class HubModel:
    """`from_pretrained`, `save_pretrained` and `push_to_hub` for an `nn.Module` that has `config()`."""

    added_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that `config.json` did not have in earlier versions, where the default is what those versions did."""

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write `config.json` and `model.safetensors` into a folder, each atomically; returns the folder."""
        assert isinstance(self, nn.Module)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        header = {"architecture": type(self).__name__, "scalefast_version": __version__}
        save_weights(self.state_dict(), target / WEIGHTS_NAME)
        text = json.dumps({**header, **self.config()}, indent=2) + "\n"
        write_atomically(target / CONFIG_NAME, text.encode())
        return target

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        device: str | torch.device = "cpu",
    ) -> Self:
        """A model in eval mode, from a folder of `save_pretrained` or `scalefast pretrain`, or from the hub.

        Args:
            folder_or_hub_id: a local folder, else a hub id (`user/name`), unless a folder `user` is here. A hub that
                does not answer within 5 seconds is not asked again: the cache serves, or an error says so.
            revision, cache_dir, token, local_files_only: as in `huggingface_hub.hf_hub_download`.
            device: where the weights go.

        Raises:
            InputError: neither a folder nor a repository that can be had.
            DataError: a file is damaged, a key is missing or unknown, or the weights do not fit the
                configuration.
        """
        options = {
            "revision": revision,
            "cache_dir": cache_dir,
            "token": token,
            "local_files_only": local_files_only,
        }
        config_path = _find(folder_or_hub_id, CONFIG_NAME, options)
        model = cls(**_read_config(config_path, cls))
        assert isinstance(model, nn.Module)
        load_weights(model, _find(folder_or_hub_id, WEIGHTS_NAME, options))
        return model.to(device).eval()

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None
    ) -> str:
        """Create the repository if needed and upload the two files; returns the commit's address."""
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(
                api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload with scalefast")
            )


def save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    """A state dict as safetensors, atomically."""
    from safetensors.torch import save

    write_atomically(path, save({name: t.detach().cpu().contiguous() for name, t in state.items()}))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file; every key and shape must fit.

    Raises:
        DataError: the file is damaged, or keys or shapes differ (all of them are named).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from error
    fill(model, state, source=str(path))


def fill(model: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Load a state dict whose every key and shape must fit; a DataError names `source` and each misfit."""
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unknown {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        raise DataError(f"{source}: the weights do not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(state)


def _find(folder_or_hub_id: str | os.PathLike[str], name: str, options: dict[str, Any]) -> Path:
    folder = Path(folder_or_hub_id)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: no {name} in this folder; a saved model has {CONFIG_NAME} and {WEIGHTS_NAME}"
            )
        return folder / name
    hub_id = os.fspath(folder_or_hub_id)
    if folder.exists() or _HUB_ID.fullmatch(hub_id) is None or folder.suffix.lower() in _FILE_SUFFIXES:
        raise InputError(
            f"{hub_id}: not a folder with a saved model ({CONFIG_NAME} and {WEIGHTS_NAME}), nor a hub id (user/name)"
        )
    if folder.parent.is_dir():
        raise InputError(
            f"{hub_id}: no such folder in {folder.parent.resolve()}; the hub's repository of that name is fetched by "
            f"`hf download {hub_id} --local-dir FOLDER`, then pass FOLDER"
        )
    return _download(hub_id, name, options)


def _download(hub_id: str, name: str, options: dict[str, Any]) -> Path:
    """One file of a hub repository, from the cache where the hub does not answer."""
    from huggingface_hub import hf_hub_download

    local = bool(options["local_files_only"])
    answers = local or _hub_answers()
    try:
        return Path(hf_hub_download(hub_id, name, **{**options, "local_files_only": local or not answers}))
    except Exception as error:  # the hub client raises a dozen unrelated classes; all mean "cannot be had"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not answers:
            reason = "the hub cannot be reached (no network, or offline mode) and it is not in the cache"
        raise InputError(
            f"{hub_id!r} is not a local folder, and as a hub id {name} could not be had: {reason}"
        ) from error


def _hub_answers() -> bool:
    """Whether the hub can be reached, asked once: its own client tries five times, a quarter of a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import get_session

    try:
        get_session().head(HfApi().endpoint, timeout=_PATIENCE)
    except Exception:  # of requests or httpx, by the version of the client; a proxy that refuses, too
        return False
    return True


def _read_config(path: Path, cls: type[HubModel]) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected a JSON object with the model's configuration")
    written_for = config.pop("architecture", None)
    config.pop("scalefast_version", None)
    if written_for != cls.__name__:
        raise DataError(f"{path}: field 'architecture' is {written_for!r}, expected {cls.__name__!r}")
    known = set(inspect.signature(cls).parameters)
    unknown = sorted(set(config) - known)
    missing = sorted(known - set(config) - set(cls.added_fields))
    if unknown or missing:
        raise DataError(
            f"{path}: unknown fields {unknown}, missing fields {missing}; expected {sorted(known)}"
        )
    return config
