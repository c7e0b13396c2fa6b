"""A map over worker processes in which an item can cost nothing but itself.

`multiprocessing` pools break as a whole when one worker dies, cannot end a hung call, and (started by
`spawn`) run the user's script a second time in every worker, torch import included. Decoders do crash and
hang on damaged files, so this pool has one thread and one child interpreter per slot: the thread sends an
item, waits for the answer, and replaces the child when it dies or overstays. Children import only what the
function needs.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from scalefast.errors import InputError
from scalefast.video._pool_slot import Outcome, Slot

__all__ = ["IsolatedPool", "Outcome", "available_cpus", "isolated_map"]

T = TypeVar("T")
R = TypeVar("R")


def available_cpus() -> int:
    """CPUs that this process may run on: affinity masks and `taskset` count, the machine's total does not."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def isolated_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int | None = None,
    timeout: float | Callable[[T], float] | None = 60.0,
    ordered: bool = True,
    window: int | None = None,
    retries: int = 1,
) -> Iterator[Outcome[R]]:
    """`for outcome in isolated_map(f, items)`: f over items in worker processes, one `Outcome` per item.

    See `IsolatedPool` for the arguments. Abandoning the iterator ends the workers.
    """
    with IsolatedPool(function, workers=workers, timeout=timeout, retries=retries) as pool:
        yield from pool.map(items, ordered=ordered, window=window)


class IsolatedPool(Generic[T, R]):
    """Worker processes for one function, kept between calls of `map`.

    Args:
        function: picklable, and importable by the workers (not from `__main__`); a callable instance or
            `functools.partial` carries state, which is sent once per worker.
        workers: processes; None: one per available CPU.
        timeout: seconds for one item, or a function of the item that gives them; the worker is killed then.
            None: no limit.
        retries: how often an item whose worker *died* is tried again in a fresh one (a worker that the system
            ended for want of memory is not the file's fault; a decoder that really crashes does so again).
            Timeouts are final.

    Raises:
        InputError: the function cannot be imported by a worker, or an argument is out of range.
        ScalefastError: workers cannot be started at all.
    """

    def __init__(
        self,
        function: Callable[[T], R],
        *,
        workers: int | None = None,
        timeout: float | Callable[[T], float] | None = 60.0,
        retries: int = 1,
    ) -> None:
        workers = available_cpus() if workers is None else workers
        if workers < 1 or (isinstance(timeout, int | float) and timeout <= 0) or retries < 0:
            given = f"{workers = }, {timeout = }, {retries = }"
            raise InputError(f"expected workers >= 1, timeout > 0 and retries >= 0, got {given}")
        payload = _pickle_function(function)
        self._slots = [Slot(payload, timeout=timeout, retries=retries) for _ in range(workers)]

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return len(self._slots)

    def map(
        self, items: Iterable[T], *, ordered: bool = True, window: int | None = None
    ) -> Iterator[Outcome[R]]:
        """One `Outcome` per item, in the order of the items (`ordered`) or as they come.

        Args:
            items: taken lazily, from the workers' threads, one at a time.
            ordered: whether outcomes keep the items' order.
            window: most items that may be started and not yet handed to the caller; bounds memory when the
                caller is slower than the workers. None: twice the workers.
        """
        window = 2 * self.workers if window is None else window
        if window < 1:
            raise InputError(f"expected window >= 1: {window = }")
        return _Run(self._slots, items, window=window).outcomes(ordered=ordered)

    def close(self) -> None:
        """End the workers; idle ones leave by themselves, busy ones are killed."""
        for slot in self._slots:  # all at once: to go takes each some 10 ms
            slot.interrupt(forever=True)
        for slot in self._slots:
            slot.end()

    def __enter__(self) -> IsolatedPool[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pickle_function(function: Callable[[T], R]) -> bytes:
    inner = getattr(function, "func", function)  # of a functools.partial
    module = getattr(inner, "__module__", type(inner).__module__)
    if module == "__main__":
        raise InputError(
            "the function is defined in the script that runs; move it to a module that workers can import"
        )
    try:
        return pickle.dumps(function, protocol=5)
    except Exception as error:
        raise InputError(f"the function cannot be sent to a worker process: {error}") from error


class _Run:
    """One call of `map`: a thread per slot takes items, and the caller's generator hands out the outcomes."""

    def __init__(self, slots: list[Slot], items: Iterable[Any], *, window: int) -> None:
        self.slots = slots
        self.items = enumerate(items)
        self.taking = threading.Lock()
        self.window = threading.Semaphore(window)
        self.results: queue.SimpleQueue[Outcome[Any] | BaseException | None] = queue.SimpleQueue()
        self.stop = threading.Event()

    def outcomes(self, *, ordered: bool) -> Iterator[Outcome[Any]]:
        threads = [threading.Thread(target=self._work, args=(slot,), daemon=True) for slot in self.slots]
        for thread in threads:
            thread.start()
        try:
            yield from self._in_order() if ordered else self._as_they_come()
        finally:
            self.stop.set()
            for slot, thread in zip(self.slots, threads, strict=True):
                self.window.release()
                while thread.is_alive():  # again, should the thread have been about to start a worker
                    slot.interrupt()
                    thread.join(timeout=0.05)

    def _as_they_come(self) -> Iterator[Outcome[Any]]:
        running = len(self.slots)
        while running:
            result = self.results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
                continue
            self.window.release()
            yield result

    def _in_order(self) -> Iterator[Outcome[Any]]:
        early: dict[int, Outcome[Any]] = {}
        following = 0
        running = len(self.slots)
        while running or early:
            while following in early:
                self.window.release()
                yield early.pop(following)
                following += 1
            if not running:
                continue
            result = self.results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                early[result.index] = result

    def _work(self, slot: Slot) -> None:
        """A slot's thread: one item after another while the window is open; None says that it has left."""
        try:
            while True:
                self.window.acquire()
                if self.stop.is_set():
                    break
                with self.taking:
                    taken = next(self.items, None)
                if taken is None:
                    break
                self.results.put(slot.run(*taken, self.stop))
        except BaseException as error:  # of the caller's iterable, or no worker starts: the caller's to see
            self.results.put(error)
        else:
            self.results.put(None)
        finally:
            self.window.release()  # another thread may wait for room only to find that nothing is left
