"""The folder to which a list's paths belong: of this machine, or one that fsspec reaches by a URL."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from scalefast._remote import filesystem, is_url, join
from scalefast.errors import InputError

__all__ = ["Root"]


class Root:
    """Where the files of a list lie.

    Args:
        folder: a path or a URL.

    Raises:
        InputError: a path at which there is no folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.remote = is_url(folder)
        if not self.remote and not os.path.isdir(self.folder):
            raise InputError(
                f"{self.folder}: no such folder; expected the folder that the list's paths belong to"
            )

    def path(self, name: str) -> Path | str:
        """A file's path, or its URL; `name` may itself be absolute or a URL."""
        if is_url(name):
            return name
        return join(self.folder, name) if self.remote else Path(join(self.folder, name))

    def exists(self, name: str) -> bool:
        """Whether there is such a file; remote folders are listed once, and then known."""
        if self.remote or is_url(name):
            return name in self._known
        return os.path.exists(os.path.join(self.folder, name))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files below the folder, relative to it, with `/`, sorted."""
        if self.remote:
            return tuple(sorted(self._known))
        found = (
            (Path(folder).relative_to(self.folder) / name).as_posix()
            for folder, _, names in os.walk(self.folder, followlinks=True)
            for name in names
        )
        return tuple(sorted(found))

    @cached_property
    def _known(self) -> frozenset[str]:
        system, top = filesystem(self.folder)
        top = top.rstrip("/")
        try:
            found = system.find(top)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be listed ({error})") from error
        return frozenset(name[len(top) :].lstrip("/") for name in found)
