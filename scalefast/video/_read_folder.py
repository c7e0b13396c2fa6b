"""A folder of videos as a list: folders per class, with or without folders per split above them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from scalefast.errors import InputError
from scalefast.video._entries import VideoEntry, VideoList
from scalefast.video._splits import SPLIT_NAMES, same_split

__all__ = ["read_folder"]


def read_folder(source: Path, *, root: Path | None, split: str | None) -> VideoList:
    """Every regular file below `source`, sorted by its path; the label is the rank of its class folder's
    name.

    Class folders lie in `source`, or in its split folders if it holds nothing but those; then the classes
    of all splits are ranked together, so that the labels of train and test agree. Files elsewhere, and
    files in hidden folders, are listed without a label. Links to folders are followed, links to nothing
    listed (as missing files).
    """
    if root is not None:
        raise InputError(f"{source}: root is for list files; a folder's videos are its own")
    splits = _split_folders(source)
    if split is not None:
        chosen = [name for name in splits if same_split(name, split)]
        if not chosen:
            raise InputError(
                f"{source}: holds no folder {split!r}; expected a folder per split with class folders inside"
            )
        files = [f"{name}/{file}" for name in chosen for file in _files(source / name)]
    else:
        files = list(_files(source))
    depth = 1 if splits else 0
    tops = [source / name for name in splits] if splits else [source]
    classes = sorted({name for top in tops for name in _subfolders(top)})
    rank = {name: label for label, name in enumerate(classes)}
    entries = []
    for file in sorted(files):
        parts = file.split("/")
        inside = len(parts) > depth + 1
        label = rank.get(parts[depth]) if inside else None
        entries.append(VideoEntry(id=file, path=source / file, label=label))
    return VideoList(entries=tuple(entries), classes=tuple(classes) or None, source=str(source))


def _split_folders(source: Path) -> list[str]:
    """The folder's split folders, if all its folders are such and hold class folders; else none."""
    folders = _subfolders(source)
    if folders and all(name in SPLIT_NAMES and _subfolders(source / name) for name in folders):
        return folders
    return []


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
