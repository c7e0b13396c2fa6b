"""An iterator that a thread of its own runs ahead of whoever reads it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["prefetched"]

Item = TypeVar("Item")

_SECONDS_BETWEEN_LOOKS = 0.1


def prefetched(items: Iterator[Item], *, ahead: int) -> Generator[Item, None, None]:
    """The items in their order, up to `ahead` of them made before they are asked for.

    What making one raises is raised where that item would have come. Closing the generator ends the thread, after
    the item that it is making.
    """
    ready: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(entry: tuple[bool, Item | BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=_SECONDS_BETWEEN_LOOKS)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
        except BaseException as error:  # belongs to the reader, whatever it is
            put((False, error))
        else:
            put((False, None))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, content = ready.get()
            if more:
                yield content  # type: ignore[misc]
            elif isinstance(content, BaseException):
                raise content
            else:
                return
    finally:
        stopped.set()
        thread.join()
