"""Every address that a kernel reads or writes in Triton's interpreter, held to the memory that it was given.

The interpreter has no bounds: what lies beside a tensor is read, and seldom shows. And a tensor need not be there: one
of 2^33 numbers has addresses, too, and a single program of a launch on it shows whether they fit 32 bits.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

__all__ = ["guarded", "run_program"]

Spans = list[tuple[int, int]]
"""Start and end of each piece of memory, in bytes."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """What kernels touch inside must lie in the memory of their arguments."""
    from triton.runtime import interpreter

    spans: Spans = []
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, copied = builder.create_masked_load, builder.create_masked_store, executor._init_args_hst

    def arguments(self: Any, args: Any, kwargs: Any) -> Any:
        host = copied(self, args, kwargs)
        storages = [a.untyped_storage() for a in (*host[0], *host[1].values()) if isinstance(a, torch.Tensor)]
        spans[:] = [(storage.data_ptr(), storage.data_ptr() + storage.nbytes()) for storage in storages]
        return host

    def loads(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask, spans)
        return load(self, pointers, mask, *rest)

    def stores(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask, spans)
        return store(self, pointers, value, mask, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "_init_args_hst", arguments)
        patch.setattr(builder, "create_masked_load", loads)
        patch.setattr(builder, "create_masked_store", stores)
        yield


def check(pointers: Any, mask: Any, spans: Spans) -> None:
    """Raise if an address that the mask lets through lies in none of the spans."""
    size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
    pointed, live = np.broadcast_arrays(pointers.data, mask.data)
    first = pointed[live.astype(bool)].astype(np.int64)
    inside = np.zeros(first.shape, bool)
    for start, end in spans:
        inside |= (first >= start) & (first + size <= end)
    if not inside.all():
        nearest = min(spans, key=lambda span: abs(int(first[~inside][0]) - span[0]))
        beside = int(first[~inside][0]) - nearest[0]
        raise IndexError(f"a kernel touches byte {beside} of {nearest[1] - nearest[0]} given to it")


class Absent:
    """A tensor that is not there: all its numbers are `value`."""

    def __init__(self, like: torch.Tensor, value: float, start: int) -> None:
        whole = like if like._base is None else like._base
        self.dtype, self.value = like.dtype, value
        self.span = (start, start + whole.numel() * whole.element_size())
        self._first = start + like.storage_offset() * like.element_size()

    def data_ptr(self) -> int:
        return self._first


def run_program(launch: Any, place: tuple[int, ...], values: Mapping[str, float]) -> int:
    """Run the program at `place` of a launch on tensors without memory.

    Args:
        values: what all loads from an argument give, by its name; else 0.

    Returns:
        The largest number of an element that was touched in any tensor.
    """
    from triton.runtime import interpreter

    function, names = launch.kernel.rewrite(), launch.kernel.arg_names
    executor = interpreter.GridExecutor(function, names, launch.grid)
    tensors, arguments, start = [], [], 1 << 12
    for name, argument in zip(names, launch.arguments, strict=False):
        if isinstance(argument, torch.Tensor):
            argument = Absent(argument, values.get(name, 0), start)
            tensors.append(argument)
            start = (argument.span[1] | 4095) + (1 << 40)
        arguments.append(argument)
    reached = [0]

    def owner(pointers: Any, mask: Any) -> Absent:
        check(pointers, mask, [tensor.span for tensor in tensors])
        first = int(pointers.data.reshape(-1)[0])
        found = max((t for t in tensors if t.span[0] <= first + (1 << 39)), key=lambda t: t.span[0])
        pointed, live = np.broadcast_arrays(pointers.data, mask.data)
        if live.any():
            farthest = int(pointed[live.astype(bool)].max()) - found.span[0]
            reached[0] = max(reached[0], farthest // found.dtype.itemsize)
        return found

    def loads(self: Any, pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        kind = pointers.get_element_ty()
        numbers = np.full(pointers.data.shape, owner(pointers, mask).value)
        if other is not None:
            numbers = np.where(mask.data, numbers, other.data)
        return interpreter.TensorHandle(numbers.astype(interpreter._get_np_dtype(kind)), kind)

    def stores(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> None:
        owner(pointers, mask)

    builder = interpreter.interpreter_builder
    scope = interpreter._patch_lang(function)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpreterBuilder, "create_masked_load", loads)
        patch.setattr(interpreter.InterpreterBuilder, "create_masked_store", stores)
        try:
            given = inspect.getcallargs(function, *arguments, **launch.constants)
            given = {
                name: value if name in executor.constexprs else interpreter._implicit_cvt(value)
                for name, value in given.items()
            }
            builder.set_grid_dim(*launch.grid, *(1,) * (3 - len(launch.grid)))
            builder.set_grid_idx(*place, *(0,) * (3 - len(place)))
            function(**given)
        finally:
            scope.restore()
    return reached[0]
