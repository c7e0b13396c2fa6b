"""A folder of videos as a list: folders per class, with or without folders per split above them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from scalefast.errors import InputError
from scalefast.video._entries import VideoEntry, VideoList
from scalefast.video._root import Root
from scalefast.video._splits import SPLIT_NAMES, same_split

__all__ = ["read_folder"]


def read_folder(source: Path | str, *, root: str | None, split: str | None) -> VideoList:
    """Every regular file below `source`, sorted by its path; the label is the rank of its class folder's
    name.

    Class folders lie in `source`, or in its split folders if it holds nothing but those; then the classes
    of all splits are ranked together, so that the labels of train and test agree. Files elsewhere, and
    files in hidden folders, are listed without a label. Links to folders are followed, links to nothing
    listed (as missing files).
    """
    if root is not None:
        raise InputError(f"{source}: root is for list files; a folder's videos are its own")
    tree = _RemoteTree(source) if isinstance(source, str) else _LocalTree(source)
    splits = _split_folders(tree)
    if split is not None:
        chosen = [name for name in splits if same_split(name, split)]
        if not chosen:
            raise InputError(
                f"{source}: holds no folder {split!r}; expected a folder per split with class folders inside"
            )
    files = [file for name in (chosen if split is not None else [""]) for file in tree.files(name)]
    depth = 1 if splits else 0
    classes = sorted({name for top in splits or [""] for name in tree.subfolders(top)})
    rank = {name: label for label, name in enumerate(classes)}
    entries = []
    for file in sorted(files):
        parts = file.split("/")
        inside = len(parts) > depth + 1
        label = rank.get(parts[depth]) if inside else None
        entries.append(VideoEntry(id=file, path=tree.root.path(file), label=label))
    return VideoList(entries=tuple(entries), classes=tuple(classes) or None, source=str(source))


def _split_folders(tree: _LocalTree | _RemoteTree) -> list[str]:
    """The folder's split folders, if all its folders are such and hold class folders; else none."""
    folders = tree.subfolders("")
    if folders and all(name in SPLIT_NAMES and tree.subfolders(name) for name in folders):
        return folders
    return []


class _LocalTree:
    """A folder of this machine."""

    def __init__(self, top: Path) -> None:
        self.root, self._top = Root(top), top

    def subfolders(self, below: str) -> list[str]:
        """Names of the folders in it, or in its folder `below`; hidden ones are left out."""
        return _subfolders(self._top / below)

    def files(self, below: str) -> list[str]:
        """All files below it, or below its folder `below`, relative to it."""
        return [(PurePosixPath(below) / file).as_posix() for file in _files(self._top / below)]


class _RemoteTree:
    """A folder behind a URL; storage may know files only, so folders are what their names say."""

    def __init__(self, url: str) -> None:
        self.root = Root(url)
        self._files = self.root.files

    def subfolders(self, below: str) -> list[str]:
        """Names of the folders in it, or in its folder `below`; hidden ones are left out."""
        depth = 1 if below else 0
        parts = [file.split("/") for file in self.files(below)]
        return sorted({names[depth] for names in parts if len(names) > depth + 1 and names[depth][:1] != "."})

    def files(self, below: str) -> list[str]:
        """All files below it, or below its folder `below`, relative to it."""
        return [file for file in self._files if file.startswith(f"{below}/")] if below else list(self._files)


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as items:
        return sorted(item.name for item in items if item.is_dir() and not item.name.startswith("."))


def _files(top: Path) -> Iterator[str]:
    """Paths of regular files and dangling links below `top`, relative to it, with `/`."""
    seen: set[str] = set()
    for folder, names, files in os.walk(top, followlinks=True, onerror=_raise):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up: its files are listed already
            names.clear()
            continue
        seen.add(real)
        base = Path(folder).relative_to(top)
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path)):
                yield (base / name).as_posix()


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed: {error.strerror}") from error
