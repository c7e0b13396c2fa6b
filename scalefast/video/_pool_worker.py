"""The child's half of the isolated pool: the loop that answers items.

Imports the standard library only, so that a worker which replaces a killed one is ready in a fraction of a second.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from scalefast.video._pool_memory import Lender
from scalefast.video._pool_messages import receive, send

__all__ = ["serve"]


def serve(descriptor: int) -> None:
    """Answer items until the parent closes the pipe. The pickled function comes first; `ready` confirms.

    Args:
        descriptor: the socket through which large arrays are handed over; -1: there is none.
    """
    memory = Lender(socket.socket(fileno=descriptor)) if descriptor >= 0 else None
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
        item, returned = inbox.get()
        if memory is not None:
            memory.take_back(returned)
        send(replies, _answer(function, item), memory=memory)


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
