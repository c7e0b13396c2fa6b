"""The isolated pool: order, failures that cost one item, memory window, clean ends."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest

from scalefast.errors import InputError, ScalefastError
from scalefast.video import IsolatedPool, isolated_map
from scalefast.video._errors import VideoError

JOBS = """
import os, signal, sys, time
import numpy as np

def square(x):
    return x * x

def process_of(x):
    return os.getpid()

def trouble(x):
    if x == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if x == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if x == "exit":
        os._exit(3)
    if x == "hang":
        time.sleep(600)
    if x == "raise":
        raise ValueError("no good")
    return x.upper()

def dies_once(mark):
    try:
        os.mkdir(mark)
    except FileExistsError:
        return "second time"
    os.kill(os.getpid(), signal.SIGKILL)

def slow(x):
    time.sleep(x)
    return x

def array(n):
    return {"zeros": np.zeros((n, 3), np.uint8), "ramp": np.arange(n, dtype=np.int64)[::2], "n": n}

def pages_of(size):
    # Pages that the system finds for memory that is taken and freed, the first and the second time.
    import resource
    faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return np.diff([faults(), *((bytearray(size), faults())[1] for _ in range(2))]).tolist()

def noisy(x):
    print("to stdout", x, flush=True)
    os.write(1, b"raw bytes")
    return sys.stdin.read(), x

class Awkward(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")

def awkward(x):
    raise Awkward(x, x)

def video_error(x):
    from scalefast.video import VideoError
    raise VideoError("a b.mp4", reason="truncated", detail="3 of 9", frames=3)

class NotHere:
    def __reduce__(self):
        return (__import__, ("no_such_module_at_all",))
    def __call__(self, x):
        return x
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of functions that workers can import."""
    (tmp_path / "pool_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("pool_jobs", None)
    import pool_jobs

    yield pool_jobs
    sys.modules.pop("pool_jobs", None)


@pytest.mark.parametrize("workers", [1, 3])
def test_ordered_results_follow_the_items(jobs: ModuleType, workers: int) -> None:
    outcomes = list(isolated_map(jobs.square, range(17), workers=workers))
    assert [outcome.index for outcome in outcomes] == list(range(17))
    assert [outcome.result() for outcome in outcomes] == [x * x for x in range(17)]


def test_unordered_results_are_complete_and_come_early(jobs: ModuleType) -> None:
    with IsolatedPool(jobs.slow, workers=2) as pool:
        list(pool.map([0.0, 0.0]))  # both workers have started
        order = [outcome.value for outcome in pool.map([0.6, 0.0, 0.01], ordered=False)]
    assert sorted(order) == [0.0, 0.01, 0.6]
    assert order[-1] == 0.6


def test_no_items(jobs: ModuleType) -> None:
    assert list(isolated_map(jobs.square, [], workers=2)) == []


def test_failures_cost_their_item_only(jobs: ModuleType) -> None:
    items = ["a", "kill", "b", "hang", "c", "raise", "segfault", "d", "exit", "e"]
    outcomes = list(isolated_map(jobs.trouble, items, workers=2, timeout=1.5))
    assert [outcome.failure for outcome in outcomes] == [
        None, "crash", None, "timeout", None, "error", "crash", None, "crash", None,
    ]  # fmt: skip
    assert [outcome.value for outcome in outcomes if outcome.failure is None] == list("ABCDE")
    by_item = dict(zip(items, outcomes, strict=True))
    assert by_item["kill"].message == "the worker process was killed by SIGKILL"
    assert by_item["segfault"].message == "the worker process was killed by SIGSEGV"
    assert by_item["exit"].message == "the worker process ended with exit code 3"
    assert by_item["hang"].message == "no answer within 1.5 s"
    assert 1.5 <= by_item["hang"].seconds < 5
    with pytest.raises(ValueError, match="no good"):
        by_item["raise"].result()
    with pytest.raises(ScalefastError, match="SIGKILL"):
        by_item["kill"].result()


def test_timeout_may_depend_on_the_item(jobs: ModuleType) -> None:
    outcomes = isolated_map(jobs.slow, [0.9, 0.9], workers=2, timeout=_first_is_strict(iter([0.2, 30.0])))
    assert sorted(outcome.failure or "" for outcome in outcomes) == ["", "timeout"]


def _first_is_strict(limits: Iterator[float]) -> Callable[[float], float]:
    lock = threading.Lock()

    def limit(item: float) -> float:
        with lock:
            return next(limits)

    return limit


def test_death_is_tried_again_once(jobs: ModuleType, tmp_path: Path) -> None:
    (outcome,) = isolated_map(jobs.dies_once, [str(tmp_path / "mark")], workers=1)
    assert outcome.result() == "second time"
    (outcome,) = isolated_map(jobs.dies_once, [str(tmp_path / "other")], workers=1, retries=0)
    assert outcome.failure == "crash"


def test_worker_killed_from_outside_is_replaced(jobs: ModuleType) -> None:
    with IsolatedPool(jobs.process_of, workers=1) as pool:
        (first,) = pool.map([0])
        (again,) = pool.map([0])
        assert first.value == again.value != os.getpid()  # one process, kept between maps
        os.kill(first.value, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first.value)], timeout=10) if psutil.pid_exists(
            first.value
        ) else None
        (after,) = pool.map([0])
        assert after.result() not in (first.value, os.getpid())


def test_arrays_come_back_whole_and_writable(jobs: ModuleType) -> None:
    (outcome,) = isolated_map(jobs.array, [1_000_003], workers=1)
    result = outcome.result()
    assert result["n"] == 1_000_003 and not result["zeros"].any() and result["zeros"].shape == (1_000_003, 3)
    assert np.array_equal(result["ramp"], np.arange(0, 1_000_003, 2))
    result["zeros"][0] = 1  # writable


def test_printing_in_a_worker_does_not_disturb_the_messages(jobs: ModuleType) -> None:
    (outcome,) = isolated_map(jobs.noisy, [5], workers=1)
    assert outcome.result() == ("", 5)


def test_exceptions_keep_what_they_can(jobs: ModuleType) -> None:
    (outcome,) = isolated_map(jobs.video_error, [0], workers=1)
    assert isinstance(outcome.error, VideoError)
    assert (outcome.error.reason, outcome.error.frames, outcome.error.path) == ("truncated", 3, "a b.mp4")
    (outcome,) = isolated_map(jobs.awkward, [7], workers=1)
    assert outcome.failure == "error" and outcome.error is None
    assert outcome.message == "Awkward: 7 and 7"


def test_window_bounds_what_is_started(jobs: ModuleType) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    results = isolated_map(jobs.square, items(), workers=2, window=3)
    for expected in range(5):
        assert next(results).value == expected**2
        time.sleep(0.1)
        assert len(taken) <= expected + 1 + 3
    results.close()


def test_abandoning_ends_the_workers(jobs: ModuleType) -> None:
    before = {child.pid for child in psutil.Process().children()}
    results = isolated_map(jobs.slow, [0.0, 300.0, 300.0, 300.0], workers=2, timeout=None)
    assert next(results).value == 0.0
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 10
    assert {child.pid for child in psutil.Process().children()} <= before


def test_workers_leave_when_the_parent_is_killed(jobs: ModuleType, tmp_path: Path) -> None:
    import subprocess

    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, pool_jobs\n"
        "from scalefast.video import IsolatedPool\n"
        "pool = IsolatedPool(pool_jobs.process_of, workers=1)\n"
        "print(next(pool.map([0])).value, flush=True)\n"
        "sys.stdin.read()\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    worker.wait(timeout=10)


def test_errors_of_the_items_reach_the_caller(jobs: ModuleType) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("the list ends here")

    with pytest.raises(KeyError, match="the list ends here"):
        list(isolated_map(jobs.square, items(), workers=2))


def test_function_that_workers_cannot_have() -> None:
    with pytest.raises(InputError, match="cannot be sent to a worker process"):
        next(isolated_map(lambda x: x, [1], workers=1))
    main = sys.modules["__main__"]
    function = type(lambda: 0)((lambda x: x).__code__, {}, "f")
    function.__module__ = main.__name__
    with pytest.raises(InputError, match="move it to a module"):
        next(isolated_map(function, [1], workers=1))


def test_function_that_workers_cannot_load(jobs: ModuleType) -> None:
    with pytest.raises(ScalefastError, match=r"(?s)cannot load its function.*no_such_module_at_all"):
        next(isolated_map(jobs.NotHere(), [1], workers=1))


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"timeout": 0.0}, {"retries": -1}], ids=str)
def test_wrong_arguments(jobs: ModuleType, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"expected workers >= 1.*{next(iter(wrong))} = "):
        IsolatedPool(jobs.square, **wrong)
    with IsolatedPool(jobs.square, workers=1) as pool, pytest.raises(InputError, match="window >= 1"):
        next(iter(pool.map([1], window=0)))


def test_partial_carries_state(jobs: ModuleType) -> None:
    (outcome,) = isolated_map(partial(pow, 2), [10], workers=1)
    assert outcome.result() == 1024


@pytest.mark.parametrize("users_own", [False, True], ids=["as it comes", "as the user says"])
def test_a_worker_keeps_the_memory_of_the_last_clips(
    jobs: ModuleType, monkeypatch: pytest.MonkeyPatch, users_own: bool
) -> None:
    """What is freed serves the next item, with glibc, unless the user's environment says otherwise."""
    if users_own:
        monkeypatch.setenv("MALLOC_MMAP_MAX_", "9")
    keeps = platform.libc_ver()[0] == "glibc" and not users_own
    (outcome,) = isolated_map(jobs.pages_of, [40_000_000], workers=1)
    first, second = outcome.result()
    assert first > 5_000
    assert second < 500 if keeps else second > 5_000
