"""The DALI pipeline: wanted frames decoded, put into clips, cropped, resized, mirrored; one graph for CPU and GPU.

Clips leave as uint8, as every backbone takes them (each normalises for itself, on its own device), through DLPack: on a
GPU they never touch the host. Order and number of the clips are ours: DALI has no reader here and shuffles
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from scalefast.errors import require
from scalefast.video._dali_source import Sample
from scalefast.video._recipe import ClipRecipe

if TYPE_CHECKING:
    import torch

__all__ = ["DaliError", "DaliPipeline", "require_dali"]


class DaliError(Exception):
    """DALI cannot decode a batch; it does not say which video is to blame."""


def require_dali() -> Any:
    """The module `nvidia.dali`.

    Raises:
        MissingExtraError: DALI is not installed.
    """
    return require("nvidia.dali", extra="dali", needed_for="decoding with DALI")


class DaliPipeline:
    """A pipeline for samples of one kind; one batch at a time.

    Args:
        kind: what the samples' data is; `"encoded"` is decoded by DALI, with NVDEC on a GPU.
        recipe: the kind of clips; all samples have been planned with it.
        gpu: index of the GPU; None: the CPU.
        batch_size: most samples of one batch.
        threads: DALI's CPU threads.
    """

    def __init__(
        self,
        *,
        kind: Literal["encoded", "frames"],
        recipe: ClipRecipe,
        gpu: int | None,
        batch_size: int,
        threads: int = 1,
    ) -> None:
        self.kind = kind
        self.recipe = recipe
        self.gpu = gpu
        self.batch_size = batch_size
        self.threads = threads
        self._under_way = 0  # videos of the batch that has been started
        self._pipeline: Any = None

    def start(self, samples: Sequence[Sample]) -> None:
        """Start a batch, and return while it decodes; `collect` it before the next."""
        assert 0 < len(samples) <= self.batch_size and not self._under_way
        if self._pipeline is None:
            self._pipeline = self._build()
        for name in ("data", "order", "boxes", "flips", *(["numbers"] if self.kind == "encoded" else [])):
            self._pipeline.feed_input(name, [getattr(sample, name) for sample in samples])
        self._pipeline.schedule_run()
        self._under_way = len(samples)

    def collect(self) -> list[torch.Tensor]:
        """The clips of the batch: uint8 [N, T, S, S, 3] for each of its videos, on the pipeline's device.

        Raises:
            DaliError: a video of the batch does not decode, which costs all of them. The pipeline starts anew.
        """
        import torch

        size, self._under_way = self._under_way, 0
        try:
            (output,) = self._pipeline.outputs()
        except RuntimeError as error:
            self._pipeline = None
            raise DaliError(str(error)) from error
        assert len(output) == size, f"DALI gave {len(output)} of {size} videos"
        return [torch.from_dlpack(output[place]) for place in range(size)]

    def _build(self) -> Any:
        dali = require_dali()
        pipeline = dali.Pipeline(
            batch_size=self.batch_size,
            num_threads=self.threads,
            device_id=self.gpu,
            prefetch_queue_depth=1,
            exec_dynamic=True,  # outputs are kept by whoever holds them, not until the next run
        )
        with pipeline:
            pipeline.set_outputs(self._graph(dali.fn, dali.types))
        pipeline.build()
        return pipeline

    def _graph(self, fn: Any, types: Any) -> Any:
        frames = self._decoded(fn, types)
        order = fn.external_source(name="order", dtype=types.INT32, ndim=2)
        boxes = fn.external_source(name="boxes", dtype=types.FLOAT, ndim=2)
        flips = fn.external_source(name="flips", dtype=types.INT32, ndim=1)
        clips = []
        for clip in range(self.recipe.clips):
            picked = fn.sequence_rearrange(frames, new_order=order[clip])
            cut = fn.resize(
                picked,
                size=[self.recipe.size, self.recipe.size],
                roi_start=boxes[clip][:2],
                roi_end=boxes[clip][2:],
                interp_type=types.INTERP_LINEAR,
                antialias=True,
            )
            clips.append(fn.flip(cut, horizontal=flips[clip]))
        return fn.stack(*clips)

    def _decoded(self, fn: Any, types: Any) -> Any:
        on_gpu = self.gpu is not None
        if self.kind == "frames":
            frames = fn.external_source(name="data", dtype=types.UINT8, ndim=4, layout="FHWC")
            return frames.gpu() if on_gpu else frames
        data = fn.external_source(name="data", dtype=types.UINT8, ndim=1)
        numbers = fn.external_source(name="numbers", dtype=types.INT32, ndim=1)
        # Without padding: a frame that is not there is an error, not a black picture.
        return fn.decoders.video(data, frames=numbers, device="mixed" if on_gpu else "cpu", pad_mode="none")
