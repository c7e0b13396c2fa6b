"""Messages of the isolated pool: whole through pipe and shared memory alike, and no descriptor or page left behind."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalefast.video import IsolatedPool
from scalefast.video import _pool_messages as messages
from scalefast.video._pool_messages import receive, send

needs_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no nameless memory")


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


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
        send(stream, message, memory=one if shared else None)
        stream.seek(0)
        back = receive(stream, memory=other if shared else None)
    assert back["words"] == "ä" and not stream.read()
    for sent, got in zip(message["arrays"], back["arrays"], strict=True):
        assert got.dtype == sent.dtype and np.array_equal(got, sent) and got.flags.writeable


@needs_memory
def test_large_arrays_take_no_room_in_the_pipe(sockets: tuple[socket.socket, socket.socket]) -> None:
    large = [np.arange(200_003, dtype=np.float64), np.arange(77, dtype=np.uint8)]
    stream = io.BytesIO()
    before = _descriptors()
    send(stream, large, memory=sockets[0])
    assert len(stream.getvalue()) < 1000
    stream.seek(0)
    back = receive(stream, memory=sockets[1])
    assert all(np.array_equal(one, other) for one, other in zip(large, back, strict=True))
    assert all(array.ctypes.data % 64 == 0 for array in back)
    back[1][:] = 1
    assert np.array_equal(back[0], large[0])
    del back
    assert _descriptors() == before, "nobody holds the memory but the arrays"


@needs_memory
def test_many_results_may_be_kept(
    sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_FEW", 5)
    before = _descriptors()
    kept = []
    for number in range(40):
        stream = io.BytesIO()
        send(stream, np.full(1 << 20, number, np.uint8), memory=sockets[0])
        stream.seek(0)
        kept.append(receive(stream, memory=sockets[1]))
    assert [int(array[-1]) for array in kept] == list(range(40))
    assert _descriptors() <= before + 12


@needs_memory
def test_system_that_refuses_memory(
    sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    stream = io.BytesIO()
    send(stream, np.arange(1 << 18), memory=sockets[0])
    stream.seek(0)
    assert np.array_equal(receive(stream, memory=sockets[1]), np.arange(1 << 18))


@needs_memory
def test_other_side_gone(sockets: tuple[socket.socket, socket.socket]) -> None:
    """A sender that dies after its header leaves the receiver with an error, not waiting."""
    stream = io.BytesIO()
    send(stream, np.zeros(1 << 20, np.uint8), memory=sockets[0])
    socket.recv_fds(sockets[1], 1, 1)  # as if it had never been sent
    sockets[0].close()
    stream.seek(0)
    with pytest.raises(EOFError, match="the other side of the socket is gone"):
        receive(stream, memory=sockets[1])


@needs_memory
def test_arrays_outlive_their_worker() -> None:
    before = _descriptors()
    with IsolatedPool(np.arange, workers=2) as pool:
        results = [outcome.result() for outcome in pool.map([300_000 + n for n in range(6)])]
    assert [len(array) for array in results] == [300_000 + n for n in range(6)]
    assert all(array[-1] == len(array) - 1 for array in results)
    del results
    assert _descriptors() == before
