"""From the decoded videos of one shard to its content: batches, backbone, features.

Shapes: `N` clips of a video, `T` frames, `S` pixels a side, `D` feature dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scalefast.errors import DataError
from scalefast.features._decode import Decoded
from scalefast.features._inputs import check_finite
from scalefast.features._shard import ShardContent
from scalefast.features._stages import StageClock

if TYPE_CHECKING:
    from scalefast.video import VideoEntry

__all__ = ["ShardBuilder", "make_labels"]

Backbone = Callable[[torch.Tensor], torch.Tensor]


class ShardBuilder:
    """Collects the videos of one shard, in the order of the list, and sends their clips through the backbone.

    Batches hold `batch_clips` clips, the last of the shard what is left, whatever the number of workers and
    whatever was done before: the same bits come out when a shard is done again.

    Args:
        backbone: uint8 [n, T, S, S, 3] -> float32 [n, D].
        batch_clips: clips in one call of the backbone.
        dtype: dtype of the features to keep.
        normalize: raw positions [N, 7] and duration in seconds -> positions float32 [N, 7].
        labels: makes the shard's labels of those of its videos; see `make_labels`.
        clock: counts the time in the backbone; None counts for nobody.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        feature_dim: int,
        batch_clips: int,
        dtype: torch.dtype,
        normalize: Callable[[np.ndarray, float], np.ndarray],
        labels: Callable[[Sequence[Any]], torch.Tensor | None],
        clock: StageClock | None = None,
    ) -> None:
        self._clock = clock or StageClock()
        self._backbone = backbone
        self._feature_dim = feature_dim
        self._batch_clips = batch_clips
        self._dtype = dtype
        self._normalize = normalize
        self._make_labels = labels
        self._waiting: list[torch.Tensor] = []
        self._outputs: list[torch.Tensor] = []
        self._lengths: list[int] = []
        self._positions: list[np.ndarray] = []
        self._raw: list[np.ndarray] = []
        self._ids: list[str] = []
        self._labels: list[Any] = []
        self._ledger: list[list[Any]] = []

    def add(self, entry: VideoEntry, decoded: Decoded) -> None:
        """Take the next video of the list, or note that it is lost."""
        self._ledger.append([entry.id, decoded.status, decoded.reason, decoded.frames])
        if decoded.clips is None or decoded.raw is None:
            return
        self._ids.append(entry.id)
        self._labels.append(entry.label)
        self._lengths.append(len(decoded.clips))
        self._raw.append(decoded.raw)
        self._positions.append(self._normalize(decoded.raw, decoded.duration))
        self._waiting.append(_tensor(decoded.clips))
        while sum(map(len, self._waiting)) >= self._batch_clips:
            self._run(self._batch_clips)

    def _run(self, clips: int) -> None:
        """Send the first `clips` waiting clips through the backbone; the output stays where it is for now."""
        taken: list[torch.Tensor] = []
        while clips:
            first = self._waiting.pop(0)
            if len(first) > clips:
                self._waiting.insert(0, first[clips:])
                first = first[:clips]
            taken.append(first)
            clips -= len(first)
        with self._clock("backbone"):
            batch = taken[0] if len(taken) == 1 else torch.cat(taken)
            output = self._backbone(batch.contiguous())
        expected = (len(batch), self._feature_dim)
        if tuple(output.shape) != expected:
            raise DataError(
                f"the backbone gave {tuple(output.shape) = }, expected {expected}: [clips, feature_dim]"
            )
        self._outputs.append(output)

    def finish(self) -> ShardContent:
        """The shard's content.

        Raises:
            InputError: a feature is NaN, or infinite in the dtype to keep; the video is named.
        """
        left = sum(map(len, self._waiting))
        if left:
            self._run(left)
        empty = torch.empty(0, self._feature_dim)
        with self._clock("backbone"):  # a GPU's work ends here
            outputs = [output.detach().cpu() for output in self._outputs]
        features = torch.cat(outputs) if outputs else empty
        kept = features.to(self._dtype)
        for values, name in ((features, "features"), (kept, f"features as {self._dtype}")):
            check_finite(values, lengths=self._lengths, ids=self._ids, first_row=0, name=name)
        return ShardContent(
            features=kept,
            lengths=self._lengths,
            positions=_rows(self._positions),
            clips=_rows(self._raw),
            labels=self._make_labels(self._labels),
            ids=self._ids,
            ledger=self._ledger,
        )


def _tensor(clips: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(clips, torch.Tensor):
        return clips
    # torch warns about arrays that cannot be written, which these only are where a worker handed over such.
    return torch.from_numpy(clips if clips.flags.writeable else clips.copy())


def _rows(parts: list[np.ndarray]) -> torch.Tensor:
    rows = np.concatenate(parts) if parts else np.empty((0, 7))
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))


def make_labels(
    entries: Sequence[VideoEntry], *, classes: Sequence[str] | None
) -> Callable[[Sequence[Any]], torch.Tensor | None]:
    """How the labels of a list are kept: None, int64 [n], float32 [n] for targets that are real numbers, or
    multi-hot bool [n, C] where videos have several.

    The form follows from the whole list, so that all shards agree: C is the number of classes, or one more
    than the largest label of the list.

    Raises:
        DataError: some videos of the list have a label and some have none.
    """
    without = [entry.id for entry in entries if entry.label is None]
    if without and len(without) < len(entries):
        raise DataError(f"the list gives {without[0]!r} no label, and others one: label all videos or none")
    if without:
        return lambda labels: None
    if any(isinstance(entry.label, float) for entry in entries):
        return lambda labels: torch.tensor(list(labels), dtype=torch.float32)
    if not any(isinstance(entry.label, tuple) for entry in entries):
        return lambda labels: torch.tensor(list(labels), dtype=torch.int64)
    sets = [_numbers(entry.label) for entry in entries]
    width = max([*(max(numbers, default=0) + 1 for numbers in sets), len(classes or ())])

    def multi_hot(labels: Sequence[Any]) -> torch.Tensor:
        hot = torch.zeros(len(labels), width, dtype=torch.bool)
        for row, label in enumerate(labels):
            hot[row, list(_numbers(label))] = True
        return hot

    return multi_hot


def _numbers(label: Any) -> tuple[int, ...]:
    return tuple(label) if isinstance(label, tuple) else (label,)
