"""The child's half of the isolated pool: messages over two pipes, and the loop that answers them.

Imports the standard library only (a result's arrays travel as raw buffers, pickle protocol 5), so that a
worker which replaces a killed one is ready in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

__all__ = ["receive", "send", "serve"]

_HEADER = struct.Struct("<II")  # number of raw buffers, size of the pickle that refers to them
_SIZE = struct.Struct("<Q")


def send(stream: BinaryIO, message: Any) -> None:
    """Write one picklable message; large contiguous arrays go out of band, without a copy in this process."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raws = [buffer.raw() for buffer in buffers]
    head = _HEADER.pack(len(raws), len(body)) + b"".join(_SIZE.pack(raw.nbytes) for raw in raws)
    for part in (memoryview(head), memoryview(body), *raws):
        _write_all(stream, part)


def receive(stream: BinaryIO) -> Any:
    """Read one message.

    Raises:
        EOFError: the other side is gone, before or in the middle of a message.
    """
    count, size = _HEADER.unpack(_read_exactly(stream, _HEADER.size))
    sizes = [_SIZE.unpack(_read_exactly(stream, _SIZE.size))[0] for _ in range(count)]
    body = _read_exactly(stream, size)
    buffers = [_read_exactly(stream, nbytes) for nbytes in sizes]
    return pickle.loads(body, buffers=buffers)


def _write_all(stream: BinaryIO, data: memoryview) -> None:
    while data.nbytes:
        data = data[stream.write(data) :]
    stream.flush()


def _read_exactly(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view.nbytes:
        got = stream.readinto(view)  # type: ignore[attr-defined]  # FileIO has it, BinaryIO's stub does not
        if not got:
            raise EOFError("the other side of the pipe is gone")
        view = view[got:]
    return data


def serve() -> None:
    """Answer items until the parent closes the pipe. The pickled function comes first; `ready` confirms."""
    requests, replies = _take_pipes()
    with contextlib.suppress(ValueError, AttributeError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which then ends its workers
    try:
        function = pickle.loads(receive(requests))
    except BaseException:
        send(replies, ("broken", traceback.format_exc()))
        return
    send(replies, ("ready", os.getpid()))
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    while True:
        send(replies, _answer(function, inbox.get()))


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the messages; everybody else gets null and stderr, since libraries print."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, replies


def _listen(requests: BinaryIO, inbox: queue.SimpleQueue[Any]) -> None:
    """Hand on items; end this process at once when the parent is gone, even from the middle of a decode."""
    try:
        while True:
            inbox.put(receive(requests))
    except (EOFError, OSError):
        os._exit(1)


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[str, Any]:
    try:
        return "value", function(item)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception with its own constructor may not survive the pipe; its text does
            return "error", (None, text)
        return "error", (error, text)
