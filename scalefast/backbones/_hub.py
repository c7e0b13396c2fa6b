"""Fetching a backbone's folder from the Hugging Face hub, or saying in one sentence why that failed."""

from __future__ import annotations

import re
from pathlib import Path

from scalefast.errors import InputError, require

__all__ = ["fetch", "is_hub_id"]

# everything that loading reads and nothing else: no pickles, no code
_FILES = [
    "config.json",
    "*preprocessor_config.json",
    "processor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form `organisation/name`, with `@revision` if wanted."""
    return _HUB_ID.fullmatch(text) is not None


def fetch(hub_id: str) -> tuple[Path, str]:
    """Download (or find in the cache) what a hub id names; returns its folder and the commit.

    Args:
        hub_id: `organisation/name`, or `organisation/name@revision` to hold on to one commit, tag or branch.

    Raises:
        InputError: no network and not in the cache, no such repository or revision, or no permission.
    """
    hub = require(
        "huggingface_hub", extra="backbones", needed_for=f"loading {hub_id} from the Hugging Face hub"
    )
    name, _, revision = hub_id.partition("@")
    try:
        folder = Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=_FILES))
    except (
        Exception
    ) as error:  # its classes, and those of the HTTP library below, differ from version to version
        raise InputError(_explain(name, revision, error)) from error
    return folder, folder.name


def _explain(name: str, revision: str, error: Exception) -> str:
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if "GatedRepoError" in kinds:
        reason = "its owners ask for a login and consent: accept the terms on its page, then `hf auth login`"
    elif "RepositoryNotFoundError" in kinds:
        reason = "there is no such repository, or it is private and needs `hf auth login`"
    elif "RevisionNotFoundError" in kinds:
        reason = f"it has no revision {revision!r}"
    elif kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError"}:
        reason = "the hub cannot be reached (no network, or offline mode) and it is not in the cache"
    else:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"cannot get backbone {name!r} from the Hugging Face hub: {reason}; nor is there a folder of that "
        f"name. Where there is a network, run `hf download {name}`, then pass the path of the folder. "
        "'r3d-tiny' needs no download"
    )
