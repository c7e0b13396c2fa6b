"""Messages of the isolated pool: whole through pipe and shared memory alike, and no descriptor or page left behind."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast.video import IsolatedPool, _pool_memory
from scalefast.video import _pool_messages as messages
from scalefast.video._pool_memory import Borrower, Lender
from scalefast.video._pool_messages import receive, send

needs_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no nameless memory")


Sides = tuple[Lender, Borrower]


@pytest.fixture
def sides() -> Iterator[Sides]:
    """Both sides of lent memory."""
    one, other = socket.socketpair()
    with one, other:
        yield Lender(one), Borrower(other)


def _passed(message: object, sides: Sides) -> Any:
    """The message as it arrives; before, the lender gets back what is free."""
    stream = io.BytesIO()
    sides[0].take_back(sides[1].returned())
    send(stream, message, memory=sides[0])
    stream.seek(0)
    return receive(stream, memory=sides[1])


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


arrays = st.lists(
    st.tuples(st.sampled_from(["u1", "f4", "f8"]), st.lists(st.integers(0, 9), max_size=3)), max_size=6
)


@settings(max_examples=60)
@given(shapes=arrays, shared=st.booleans())
def test_round_trip(shapes: list[tuple[str, list[int]]], shared: bool) -> None:
    if shared and not hasattr(os, "memfd_create"):
        return
    rng = np.random.default_rng(0)
    message = {
        "words": "ä",
        "arrays": [rng.integers(0, 99, size=shape).astype(kind) for kind, shape in shapes],
    }
    stream = io.BytesIO()
    one, other = socket.socketpair()
    with one, other, pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "_LARGE", 1)
        send(stream, message, memory=Lender(one) if shared else None)
        stream.seek(0)
        back = receive(stream, memory=Borrower(other) if shared else None)
    assert back["words"] == "ä" and not stream.read()
    for sent, got in zip(message["arrays"], back["arrays"], strict=True):
        assert got.dtype == sent.dtype and np.array_equal(got, sent) and got.flags.writeable


@needs_memory
def test_large_arrays_take_no_room_in_the_pipe(sides: Sides) -> None:
    large = [np.arange(200_003, dtype=np.float64), np.arange(77, dtype=np.uint8)]
    stream = io.BytesIO()
    before = _descriptors()
    send(stream, large, memory=sides[0])
    assert len(stream.getvalue()) < 1000
    stream.seek(0)
    back = receive(stream, memory=sides[1])
    assert all(np.array_equal(one, other) for one, other in zip(large, back, strict=True))
    assert all(array.ctypes.data % 64 == 0 for array in back)
    back[1][:] = 1
    assert np.array_equal(back[0], large[0])
    assert sides[1].returned() == []
    part = back[0][5:7]
    del back
    assert sides[1].returned() == [], "a part of an array keeps the memory too"
    del part
    assert sides[1].returned() == [0] and sides[1].returned() == []
    assert _descriptors() == before + 1, "nobody holds the memory but the lender"


@needs_memory
def test_memory_is_used_again(sides: Sides) -> None:
    """One memory serves arrays of one size for ever; those of another size drop it."""
    before = _descriptors()
    for number in range(20):
        got = _passed(np.full(1 << 20, number, np.uint8), sides)
        assert (got == number).all()
        del got
    assert _descriptors() == before + 1
    assert (_passed(np.full((1 << 20) + 5, 7, np.uint8), sides) == 7).all()
    assert _descriptors() == before + 1


@needs_memory
@settings(max_examples=30, deadline=None)
@given(keep=st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=25))
def test_what_is_kept_is_never_written_over(keep: list[tuple[int, bool]]) -> None:
    """Whatever the receiver lets go of and when: each step forgets one of the arrays that it holds, or none."""
    one, other = socket.socketpair()
    with one, other:
        sides, held = (Lender(one), Borrower(other)), {}
        for number, (place, larger) in enumerate(keep):
            held[number] = _passed(np.full((1 << 20) + larger, number, np.uint8), sides)
            held.pop(list(held)[place] if place < len(held) else None, None)
            assert all((array == value).all() for value, array in held.items())


@needs_memory
def test_few_memories_are_spared(sides: Sides) -> None:
    """A receiver that has held many results and lets go of all does not leave the lender with their memory."""
    before = _descriptors()
    held = [_passed(np.full(1 << 20, number, np.uint8), sides) for number in range(20)]
    held.clear()
    last = _passed(np.zeros(1 << 20, np.uint8), sides)
    assert _descriptors() == before + _pool_memory._SPARE + 1  # and the map that `last` refers to
    del last


@needs_memory
def test_many_results_may_be_kept(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than few are copied, and their memory is free at once."""
    monkeypatch.setattr(_pool_memory, "_FEW", 5)
    before = _descriptors()
    kept = [_passed(np.full(1 << 20, number, np.uint8), sides) for number in range(40)]
    assert [int(array[-1]) for array in kept] == list(range(40))
    assert _descriptors() <= before + 12


@needs_memory
def test_system_that_refuses_memory(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert np.array_equal(_passed(np.arange(1 << 18), sides), np.arange(1 << 18))


@needs_memory
def test_memory_that_cannot_be_filled(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full machine costs shared memory only: the arrays go through the pipe, and no descriptor stays."""

    def refuse(stream: object, data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    before = _descriptors()
    monkeypatch.setattr(_pool_memory, "write_all", refuse)
    assert np.array_equal(_passed(np.arange(1 << 18), sides), np.arange(1 << 18))
    assert _descriptors() == before


@needs_memory
def test_other_side_gone() -> None:
    """A sender that dies after its header leaves the receiver with an error, not waiting."""
    stream = io.BytesIO()
    one, other = socket.socketpair()
    with other:
        with one:
            send(stream, np.zeros(1 << 20, np.uint8), memory=Lender(one))
            socket.recv_fds(other, 1, 1)  # as if it had never been sent
        stream.seek(0)
        with pytest.raises(EOFError, match="the other side of the socket is gone"):
            receive(stream, memory=Borrower(other))


@needs_memory
def test_arrays_outlive_their_worker() -> None:
    before = _descriptors()
    with IsolatedPool(np.arange, workers=2) as pool:
        results = [outcome.result() for outcome in pool.map([300_000 + n for n in range(6)])]
    assert [len(array) for array in results] == [300_000 + n for n in range(6)]
    assert all(array[-1] == len(array) - 1 for array in results)
    del results
    assert _descriptors() == before
