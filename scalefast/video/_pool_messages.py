"""Messages between the isolated pool and its workers: a pickle through a pipe, large arrays through shared memory.

A reply's arrays travel as raw buffers (pickle protocol 5). Where Linux offers it and they are large, the sender puts
them into memory that it lends to the receiver (`_pool_memory`), which maps them instead of reading them.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO

from scalefast.video._pool_memory import Borrower, Lender, write_all

__all__ = ["receive", "send"]

_HEADER = struct.Struct(
    "<IIq"
)  # raw buffers, bytes of the pickle that refers to them, number of their memory
_NO_MEMORY = -1  # all goes through the pipe
_SIZE = struct.Struct("<Q")
_LARGE = 1 << 20  # bytes from which mapping is worth its system calls


def send(stream: BinaryIO, message: Any, *, memory: Lender | None = None) -> None:
    """Write one picklable message.

    Args:
        stream: where to.
        message: large contiguous arrays in it go out of band.
        memory: lends memory for large buffers; None: all goes through `stream`.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raws = [buffer.raw() for buffer in buffers]
    lent = None
    if memory is not None and sum(raw.nbytes for raw in raws) >= _LARGE:
        lent = memory.lend(raws)
    number = _NO_MEMORY if lent is None else lent
    head = _HEADER.pack(len(raws), len(body), number) + b"".join(_SIZE.pack(raw.nbytes) for raw in raws)
    for part in (memoryview(head), memoryview(body), *(raws if lent is None else [])):
        write_all(stream, part)


def receive(stream: BinaryIO, *, memory: Borrower | None = None) -> Any:
    """Read one message.

    Args:
        stream: where from.
        memory: gets what the sender lends.

    Raises:
        EOFError: the other side is gone, before or in the middle of a message.
    """
    count, size, number = _HEADER.unpack(_read_exactly(stream, _HEADER.size))
    sizes = [_SIZE.unpack(_read_exactly(stream, _SIZE.size))[0] for _ in range(count)]
    body = _read_exactly(stream, size)
    if memory is not None and number != _NO_MEMORY:
        return pickle.loads(body, buffers=memory.borrow(number, sizes))
    return pickle.loads(body, buffers=[_read_exactly(stream, nbytes) for nbytes in sizes])


def _read_exactly(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view.nbytes:
        got = stream.readinto(view)  # type: ignore[attr-defined]  # FileIO has it, BinaryIO's stub does not
        if not got:
            raise EOFError("the other side of the pipe is gone")
        view = view[got:]
    return data
