"""Memory that a worker lends to the process which asks it, with large arrays in it, and gets back for the next ones.

It has no name, so nothing is left behind when a process is killed. It is used again and again, since the kernel takes
its time to find pages for the 38 MB of a video's 16 clips, and to free them: the one on the worker's processor, the
other on the caller's, which with one worker for each processor is a worker's too.
"""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import BinaryIO

__all__ = ["Borrower", "Lender", "write_all"]

_FEW = (
    256  # results kept at a time, an open file each; more are copied, for 1024 open files is a common limit
)
_SPARE = 4  # memories that wait for the next arrays; a receiver rarely holds more of one worker's
_ALIGNMENT = 64  # bytes, as numpy and torch align their own

_kept: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class Lender:
    """The worker's side.

    Args:
        channel: a socket of this machine, whose other end the `Borrower` has.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._numbers = itertools.count()
        self._memories: dict[int, tuple[BinaryIO, int]] = {}
        self._spare: list[int] = []

    def lend(self, raws: Sequence[memoryview]) -> int | None:
        """Copy the buffers into memory and hand it over: its number, or None where the system refuses memory."""
        places = _places([raw.nbytes for raw in raws])
        try:
            number, file = self._memory(places[-1])
        except OSError:
            return None
        try:
            file.truncate(places[-1])
            for place, raw in zip(places, raws, strict=False):
                file.seek(place)
                write_all(file, raw)
            socket.send_fds(self._channel, [b"m"], [file.fileno()])
        except OSError:
            self._drop(number)
            return None
        return number

    def take_back(self, numbers: Iterable[int]) -> None:
        """Memories that no array refers to any more."""
        for number in numbers:
            if len(self._spare) < _SPARE:
                self._spare.append(number)
            else:
                self._drop(number)

    def _memory(self, size: int) -> tuple[int, BinaryIO]:
        """A spare memory of that size, or a new one: its number, and the file that it is."""
        while self._spare:
            number = self._spare.pop()
            file, its_size = self._memories[number]
            if its_size == size:
                return number, file
            self._drop(number)  # of arrays of another shape: they will hardly come again
        number, file = next(self._numbers), os.fdopen(os.memfd_create("scalefast"), "wb", buffering=0)
        self._memories[number] = file, size
        return number, file

    def _drop(self, number: int) -> None:
        self._memories.pop(number)[0].close()


class Borrower:
    """The side of the process that asks.

    Args:
        channel: the other end of the lender's socket.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._returned: deque[int] = deque()

    def borrow(self, number: int, sizes: Sequence[int]) -> list[memoryview] | list[bytearray]:
        """The buffers in the memory of that number, which is handed over; it is returned when nothing refers to them.

        Raises:
            EOFError: the lender is gone.
        """
        _, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
        if not descriptors:
            raise EOFError("the other side of the socket is gone")
        places = _places(sizes)
        try:
            # Lives, with a descriptor, as long as an array refers to it.
            mapped = mmap.mmap(descriptors[0], places[-1])
        finally:
            os.close(descriptors[0])
        view = memoryview(mapped)
        parts = [view[place : place + size] for place, size in zip(places, sizes, strict=False)]
        if len(_kept) >= _FEW:
            self._returned.append(number)
            return [bytearray(part) for part in parts]
        _kept.add(mapped)
        weakref.finalize(mapped, self._returned.append, number).atexit = False
        return parts

    def returned(self) -> list[int]:
        """Numbers of the memories that are to be given back; each is said once."""
        return [self._returned.popleft() for _ in range(len(self._returned))]

    def close(self) -> None:
        """Close the socket; what has been borrowed stays."""
        self._channel.close()


def write_all(stream: BinaryIO, data: memoryview) -> None:
    """Write all of it, in as many pieces as the stream takes."""
    while data.nbytes:
        data = data[stream.write(data) :]
    stream.flush()


def _places(sizes: Sequence[int]) -> list[int]:
    """Where each buffer begins in the memory, and where the last one ends."""
    places = [0]
    for size in sizes:
        places.append(places[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    return places
