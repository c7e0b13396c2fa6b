"""One slot of the isolated pool: a child interpreter that is asked, watched, and replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

from scalefast.errors import ScalefastError
from scalefast.video._pool_memory import Borrower
from scalefast.video._pool_messages import receive, send

__all__ = ["Outcome", "Slot"]

R = TypeVar("R")

_BOOT = """import sys
sys.path[:] = sys.argv[2:]
from scalefast.video._pool_worker import serve
serve(int(sys.argv[1]))"""
_ENVIRONMENT = {
    # One thread per process by default: as many workers as CPUs already fill the machine.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps what is freed: by itself it hands the 38 MB of each video's clips back, and Linux clears them again
    # (340x256, one worker: 65.6 and 64.5 ms a video against 62.7 and 62.4; 2-core EPYC Zen 5, November 2026).
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
_START_ATTEMPTS = 3
_PIPE_BYTES = 1 << 20  # Linux' largest without privileges; clips go through in fewer, larger pieces


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[R]):
    """What became of one item."""

    index: int
    """Position of the item in the iterable that was mapped."""
    value: R | None = None
    """What the function returned; None after a failure."""
    failure: Literal["error", "crash", "timeout"] | None = None
    """None: it returned. error: it raised. crash: its process died. timeout: it was ended as too slow."""
    error: Exception | None = None
    """The exception that the function raised, where it could be carried over."""
    message: str = ""
    """The failure in words."""
    seconds: float = 0.0
    """Wall time in the worker, transfer included."""

    def result(self) -> R:
        """The value, or the function's own exception, or a ScalefastError that says crash or timeout."""
        if self.failure is None:
            return self.value  # type: ignore[return-value]
        raise self.error or ScalefastError(self.message)


@dataclass
class Slot:
    """One worker process, replaced whenever it dies. Used by one thread at a time."""

    payload: bytes
    timeout: float | Callable[[Any], float] | None
    retries: int
    process: subprocess.Popen[bytes] | None = None
    memory: Borrower | None = None  # what the worker lends with large arrays in it
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards `process` and `ended` against end()
    ended: bool = False

    def run(self, index: int, item: Any, stop: threading.Event) -> Outcome[Any]:
        """Have the worker answer one item; raises only when no worker can be started."""
        for attempt in count():
            outcome = self._ask(self._ready(), index, item)
            if outcome.failure != "crash" or attempt >= self.retries or stop.is_set():
                return outcome
        raise AssertionError("unreachable")

    def _ask(self, process: subprocess.Popen[bytes], index: int, item: Any) -> Outcome[Any]:
        begin = time.perf_counter()
        answer: tuple[str, Any] | None = None
        limit = self.timeout(item) if callable(self.timeout) else self.timeout
        with _Watchdog(process, limit) as watchdog, contextlib.suppress(EOFError, OSError):
            returned = [] if self.memory is None else self.memory.returned()
            send(process.stdin, (item, returned))  # type: ignore[arg-type]
            answer = receive(process.stdout, memory=self.memory)  # type: ignore[arg-type]
        seconds = time.perf_counter() - begin
        if answer is None or watchdog.overdue:
            code = process.wait() if answer is None else 0
            self._drop()
        if answer is None and watchdog.overdue:
            text = f"no answer within {limit:g} s"
            return Outcome(index=index, failure="timeout", message=text, seconds=seconds)
        if answer is None:
            return Outcome(index=index, failure="crash", message=_death(code), seconds=seconds)
        kind, content = answer
        if kind == "value":
            return Outcome(index=index, value=content, seconds=seconds)
        error, text = content
        return Outcome(index=index, failure="error", error=error, message=text, seconds=seconds)

    def _ready(self) -> subprocess.Popen[bytes]:
        """The living worker, or a new one that has confirmed the function."""
        if self.process is not None and self.process.poll() is None:
            return self.process
        self._drop()
        trouble = ""
        for _ in range(_START_ATTEMPTS):
            process = self._start()
            try:
                send(process.stdin, self.payload)  # type: ignore[arg-type]
                kind, content = receive(process.stdout)  # type: ignore[arg-type]
            except (EOFError, OSError):
                trouble = _death(process.wait())
                self._drop()
                continue
            if kind == "ready":
                return process
            self._drop()
            raise ScalefastError(f"a worker process cannot load its function:\n{content}")
        raise ScalefastError(f"worker processes cannot be started ({trouble})")

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**_ENVIRONMENT, **os.environ}
        path = [os.path.abspath(entry) for entry in sys.path]
        with self.lock:
            if self.ended:
                raise ScalefastError("the pool is closed")
            ours, theirs = socket.socketpair() if hasattr(os, "memfd_create") else (None, None)
            self.memory = None if ours is None else Borrower(ours)
            descriptors = () if theirs is None else (theirs.fileno(),)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(*descriptors or (-1,)), *path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=environment,
                pipesize=_PIPE_BYTES if sys.platform == "linux" else -1,
                pass_fds=descriptors,
            )
            if theirs is not None:
                theirs.close()
            return self.process

    def _drop(self) -> None:
        with self.lock:
            process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        if self.memory is not None:
            self.memory.close()

    def interrupt(self, *, forever: bool = False) -> None:
        """Kill the worker, from any thread; whoever waits for it sees it die. `forever`: start no other."""
        with self.lock:
            self.ended = self.ended or forever
            if self.process is not None:
                self.process.kill()

    def end(self) -> None:
        """Kill the worker and start none again; the thread that used the slot must have left."""
        self.interrupt(forever=True)
        self._drop()


class _Watchdog:
    """Kills a process that has not answered within the limit; leaving the block makes `overdue` final."""

    def __init__(self, process: subprocess.Popen[bytes], limit: float | None) -> None:
        self.process = process
        self.overdue = False
        self.timer = None if limit is None else threading.Timer(limit, self._bite)

    def _bite(self) -> None:
        self.overdue = True
        self.process.kill()

    def __enter__(self) -> _Watchdog:
        if self.timer is not None:
            self.timer.daemon = True
            self.timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer.join()


def _death(code: int) -> str:
    if code >= 0:
        return f"the worker process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the worker process was killed by {name}"
