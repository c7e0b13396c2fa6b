"""Arrays that live in the shards of a store and are read, and verified, when they are touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from scalefast.features._shard import Shard

__all__ = ["VerifiedArray"]


class VerifiedArray:
    """A read-only array over all shards of a store, memory-mapped; what is read comes as an ordinary
    `torch.Tensor`.

    `array[i]`, `array[2:5]`, `array[indices]`, `array[mask]` read only the rows asked for and verify the
    blocks that hold them. Whatever needs all of it (`torch.equal(array, x)`, `np.asarray(array)`,
    `array.to("cuda")`, `array.float()`, `array == x`) verifies and reads all of it, anew each time: keep the
    result of `array.tensor()`, or use `FeatureStore.load`, when it is used often.

    Args:
        shards: the shards, in order.
        section: the section of the shards.
        width: clips in one row of the array; `[N, width, ...]`, or 0 for one clip a row: `[T, ...]`.
        column: which of the section's `[t, columns, ...]` to show, or None where it has no such dimension.
        row_shape: shape of one clip's entry, for example `(768,)`.
        dtype: dtype of the section.

    Raises:
        StoreError: (when touched) a block does not match its checksum; the message names the shard.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        section: str,
        width: int,
        column: int | None,
        row_shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> None:
        self._shards = shards
        self._section = section
        self._width = width
        self._column = column
        counts = [shard.clips // max(width, 1) for shard in shards]
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)
        self._row_shape = ((width,) if width else ()) + row_shape
        self.dtype = dtype

    @property
    def shape(self) -> torch.Size:
        """`[N, V, ...]`, or `[T, ...]` where the sets differ in length."""
        return torch.Size((int(self._starts[-1]), *self._row_shape))

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return 1 + len(self._row_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array as a tensor."""
        return self.shape.numel() * self.dtype.itemsize

    def size(self, dim: int | None = None) -> Any:
        """As `torch.Tensor.size`."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"VerifiedArray(shape={list(self.shape)}, dtype={self.dtype}, shards={len(self._shards)})"

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[row] for row in range(len(self)))

    def _pick(self, data: torch.Tensor) -> torch.Tensor:
        """`[rows, width, columns?, ...]` -> `[rows, ...]` of this array."""
        if self._column is not None:
            data = data[:, :, self._column]
        return data if self._width else data[:, 0]

    def tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """All of it as one tensor on `device`, every block verified; goes over shard by shard."""
        whole = torch.empty(self.shape, dtype=self.dtype, device=device)
        for shard, start, stop in zip(self._shards, self._starts[:-1], self._starts[1:], strict=True):
            data = shard.read(self._section)
            whole[start:stop] = self._pick(data.view(int(stop - start), max(self._width, 1), *data.shape[1:]))
        return whole

    def rows(self, rows: np.ndarray) -> torch.Tensor:
        """The rows with these numbers (int64, each in [0, len)), in the given order: `[len(rows), ...]`."""
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.unique(owners)
        if len(found) == 1:  # what was read is a copy already
            return self._read(int(found[0]), rows).contiguous()
        out = torch.empty((len(rows), *self._row_shape), dtype=self.dtype)
        for owner in found.tolist():
            places = np.flatnonzero(owners == owner)
            out[torch.from_numpy(places)] = self._read(owner, rows[places])
        return out

    def _read(self, owner: int, rows: np.ndarray) -> torch.Tensor:
        """Rows that one shard has, verified."""
        units = rows - self._starts[owner]
        return self._pick(self._shards[owner].read_units(self._section, units, width=max(self._width, 1)))

    def _row_numbers(self, index: Any) -> np.ndarray:
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)), dtype=np.int64)
        numbers = np.asarray(index.cpu() if isinstance(index, torch.Tensor) else index)
        if numbers.dtype == bool:
            if numbers.shape != (len(self),):
                raise IndexError(
                    f"a mask over {len(self)} rows has shape ({len(self)},), got {numbers.shape = }"
                )
            return np.flatnonzero(numbers)
        if numbers.size == 0:
            numbers = numbers.astype(np.int64)
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
            raise IndexError(
                f"rows are chosen by integers, a slice or a mask, got {type(index).__name__}: {index!r}"
            )
        numbers = numbers.astype(np.int64)
        outside = (numbers < -len(self)) | (numbers >= len(self))
        if outside.any():
            raise IndexError(f"row {int(numbers[outside][0])} is out of range for {len(self)} rows")
        return np.where(numbers < 0, numbers + len(self), numbers)

    def __getitem__(self, index: Any) -> torch.Tensor:
        if isinstance(index, tuple):
            if not index or index[0] is Ellipsis or index[0] is None:
                return self.tensor()[index]
            first, rest = index[0], index[1:]
            if isinstance(first, slice):
                return self[first][(slice(None), *rest)]
            if not rest:
                return self[first]
            return self[first][rest] if _is_integer(first) else self.tensor()[index]
        if index is Ellipsis or index is None:
            return self.tensor()[index]
        if _is_integer(index):
            return self.rows(self._row_numbers([int(index)]))[0]
        if isinstance(index, slice) and index == slice(None):
            return self.tensor()
        if isinstance(index, torch.Tensor | np.ndarray) and index.ndim > 1:
            return self.tensor()[torch.as_tensor(index)]
        return self.rows(self._row_numbers(index))

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """All of it, as `torch.Tensor.to` (device, dtype); a lone device is filled shard by shard."""
        if len(args) == 1 and not kwargs and isinstance(args[0], str | torch.device):
            return self.tensor(device=args[0])
        return self.tensor().to(*args, **kwargs)

    def numpy(self) -> np.ndarray:
        """All of it as a numpy array; bfloat16, which numpy has not, comes as float32."""
        whole = self.tensor()
        return (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self.numpy()
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.tensor().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return torch.empty(0).__dlpack_device__()

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return function(*_tensors(args), **_tensors(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        # Everything else that a tensor can do (mean, float, std, ...), done on the whole.
        if name.startswith("_") or not hasattr(torch.Tensor, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.tensor(), name)

    __hash__ = None  # type: ignore[assignment]


def _is_integer(index: Any) -> bool:
    if isinstance(index, bool | np.bool_):
        return False
    if isinstance(index, torch.Tensor | np.ndarray):
        return index.ndim == 0 and not str(index.dtype).endswith("bool")
    return hasattr(index, "__index__")


def _tensors(value: Any) -> Any:
    if isinstance(value, VerifiedArray):
        return value.tensor()
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_tensors(item) for item in value)
    return value


def _forward_operators() -> None:
    """Give `VerifiedArray` the operators of a tensor, done on the whole."""

    def forward(name: str) -> Any:
        def method(self: VerifiedArray, *others: Any) -> Any:
            return getattr(self.tensor(), name)(*_tensors(others))

        method.__name__ = name
        return method

    binary = ("add", "sub", "mul", "truediv", "matmul", "pow", "floordiv", "mod")
    names = [f"__{prefix}{name}__" for name in binary for prefix in ("", "r")]
    names += [f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "abs", "bool")]
    for name in names:
        setattr(VerifiedArray, name, forward(name))


_forward_operators()
