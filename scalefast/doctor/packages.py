"""The packages that scalefast needs or can use, and which versions of them are installed."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

__all__ = ["CORE", "EXTRAS", "VERB_EXTRAS", "Package", "installed", "version_fits"]

CORE = {
    "torch": ">=2.11,<2.16",
    "numpy": ">=1.26",
    "safetensors": ">=0.4.5",
    "huggingface_hub": ">=0.30",
    "tyro": ">=0.9.20",
    "tqdm": ">=4.66",
}
"""What scalefast always needs, with the versions that it is known to work with; as in pyproject.toml."""

EXTRAS = {
    "video": {"av": ">=17"},
    "backbones": {"transformers": ">=4.53,<6"},
    "report": {"matplotlib": ">=3.9", "tensorboard": ">=2.18"},
    "faiss": {"faiss-cpu": ">=1.9"},
    "app": {"gradio": ">=6,<7"},
    "torchcodec": {"torchcodec": ">=0.11,<0.14"},
    "remote": {"fsspec": ">=2024.6", "s3fs": ">=2024.6"},
    "ray": {"ray": ">=2.40", "pyarrow": ">=14", "pandas": ">=2"},
    "dali": {"nvidia-dali-cuda130": ">=2.4,<3"},
    "gpu": {"triton": ">=3.6,<3.10"},
    "timm": {"timm": ">=1.0.12"},
}
"""Extra -> the packages that it installs, with their versions; as in pyproject.toml."""

VERB_EXTRAS: dict[str, tuple[str, ...]] = {
    "scan": ("video",),
    "extract": ("video",),
    "backbones": (),
    "cvrl": ("video",),
    "finetune": ("video",),
    "pretrain": (),
    "windows": (),
    "evaluate": (),
    "ablate": (),
    "embed": (),
    "search": (),
    "app": ("app",),
    "report": ("report",),
    "precompile": ("gpu",),
    "doctor": (),
}
"""Verb -> the extras without which it cannot run."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that scalefast needs or can use."""

    name: str
    """Name of the distribution."""
    wanted: str
    """Versions that are known to work, for example `>=2.11,<2.16`."""
    installed: str | None
    """Version found, None if there is none."""
    extra: str | None
    """The extra that installs it, None for what is always needed."""

    @property
    def requirement(self) -> str:
        """As pip takes it, for example `torch>=2.11,<2.16`."""
        return self.name + self.wanted

    @property
    def fits(self) -> bool:
        """Installed, in a version that is known to work."""
        return self.installed is not None and version_fits(self.installed, self.wanted)


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def version_fits(version: str, wanted: str) -> bool:
    """Whether a version lies in a range such as `>=2.11,<2.16`; local and pre-release parts are ignored.

    Example: `version_fits("2.13.0+cpu", ">=2.11,<2.16")` is true.
    """
    found = _release(version)
    for bound in wanted.split(","):
        operator, limit = bound.rstrip("0123456789."), _release(bound.lstrip("<>="))
        if operator not in (">=", "<"):
            raise ValueError(f"a range is made of '>=' and '<' alone: {wanted = }")
        if (found >= limit) != (operator == ">="):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """Leading numbers of a version without trailing zeros, so that 2.11 and 2.11.0 are equal."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
