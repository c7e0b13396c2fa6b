"""A run over clips that are decoded anew in every epoch: the loop, and what happens around it.

It is the trainer's of SCALE, with the encoder inside: the same folder, checkpoints, logs, schedule and batches, and
the same promise, that a killed and resumed run leaves the bytes of one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scalefast.backbones.gradient_cache import backward_in_chunks
from scalefast.cvrl._decode import ClipPlan
from scalefast.cvrl._stream import Batch, stream_batches
from scalefast.cvrl.config import ClipTraining
from scalefast.cvrl.optimizer import build_optimizer, capture, restore
from scalefast.errors import InputError, TrainingError
from scalefast.training.checkpoint import Checkpoints
from scalefast.training.circumstances import changed_since, circumstances
from scalefast.training.continuity import Cadence, newest_checkpoint
from scalefast.training.distributed import World
from scalefast.training.logs import RunLog
from scalefast.training.sampler import BatchPlan
from scalefast.training.schedule import learning_rate_at, set_learning_rate
from scalefast.training.state import check_weights
from scalefast.video import VideoEntry

__all__ = ["ClipRun", "ClipTask", "take_step"]


class ClipTask(Protocol):
    """What is trained: an encoder of clips, and what judges its features."""

    module: nn.Module
    """All that a checkpoint holds; its trainable parameters are trained."""
    encoder: nn.Module
    """The part whose activations are large."""

    def prepare(self, batch: Batch, device: torch.device) -> Tensor:
        """The clips as the encoder's input [N, ...], augmented, on the device."""

    def encode(self, clips: Tensor) -> Tensor:
        """[n, ...] -> float32 features [n, D]."""

    def judge(self, features: Tensor, batch: Batch) -> Any:
        """Losses of a batch: a dataclass of 0-d tensors, `loss` first."""


def take_step(task: ClipTask, batch: Batch, *, world: World, training: ClipTraining) -> Any:
    """Forward and backward of one batch; gradients are averaged over the processes."""
    clips = task.prepare(batch, world.device)
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(
        devices=devices
    ):  # dropout inside an encoder: a function of seed, step and rank
        torch.manual_seed(_dropout_seed(training.seed, step=batch.step, rank=world.rank))
        losses = backward_in_chunks(
            task.encode,
            clips,
            lambda features: task.judge(features, batch),
            chunk=training.chunk_clips,
            encoder=task.encoder,
        )
    trained = [p for p in task.module.parameters() if p.requires_grad]
    world.average_gradients(trained)
    if training.clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(trained, training.clip_grad_norm)
    return losses


def _dropout_seed(seed: int, *, step: int, rank: int) -> int:
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(kw_only=True)
class ClipRun:
    """One process's part of a run, from start or resume to its end."""

    label: str
    """What is being done, in a word."""
    entries: Sequence[VideoEntry]
    clips: ClipPlan
    task: ClipTask
    training: ClipTraining
    """With "auto" resolved."""
    world: World
    folder: Path
    say: Callable[[str], None]
    """Takes notes and progress, in process 0."""
    workers: int | None = None

    def __post_init__(self) -> None:
        training = self.training
        self.plan = BatchPlan(
            num_videos=len(self.entries),
            batch_size=training.batch_size,
            epochs=training.epochs,
            seed=training.seed,
        )
        self.plan.share(0, rank=self.world.rank, world_size=self.world.size)  # refuses too many processes now
        uneven = self.plan.batch % self.world.size
        if uneven and training.chunk_clips is not None and self.world.device.type == "cuda":
            # synchronised batch normalisation meets once a chunk: another number of chunks would wait for ever
            raise InputError(
                f"chunk_clips needs equal shares of a batch: {self.plan.batch} videos on {self.world.size} processes"
            )
        self.optimizer = build_optimizer(
            self.task.module,
            name=training.optimizer,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            momentum=training.momentum,
        )
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.cadence = Cadence(
            log_every=training.log_every,
            checkpoint_every=training.checkpoint_every,
            total_steps=self.plan.total_steps,
            world=self.world,
        )
        self.log: RunLog | None = None
        self.start = 0
        self.last: dict[str, float] = {}
        """Means over the steps of the last line of the log."""
        self._rows: list[list[float]] = []  # losses of steps that no line of the log holds yet
        self._names: list[str] = []

    def resume(self) -> None:
        """Take up the run where its newest intact checkpoint left it; without one, at its beginning.

        Raises:
            TrainingError: all checkpoints are damaged, or the processes do not see the same one.
        """
        found = newest_checkpoint(self.checkpoints, world=self.world, folder=self.folder, say=self.say)
        if found is None:
            return
        self.start = found.step
        restore(found.tensors, self.task.module, self.optimizer, source=str(found.path))
        self._rows, self._names = found.state["unlogged"], found.state["names"]
        if (changed := changed_since(found.state["circumstances"], self.world)) is not None:
            self.say(changed)
        self.say(f"going on after step {found.step} of {self.plan.total_steps} ({found.path.name})")

    def train(self, held: contextlib.ExitStack) -> None:
        """Every step from where the run begins to its end; `held` closes log and workers.

        Raises:
            TrainingError: a loss or weight is not finite, or the disk refuses. DataError: a file cannot be decoded.
        """
        self.world.on_main(lambda: self._open_log(held))
        self.cadence.saved()
        self._began = self._told_at = time.monotonic()
        batches = stream_batches(
            self.entries,
            plan=self.plan,
            clips=self.clips,
            world=self.world,
            start=self.start,
            workers=self.workers,
        )
        held.callback(batches.close)
        self.task.module.train()
        for batch in batches:
            rate = self._learning_rate(batch.step)
            set_learning_rate(self.optimizer, rate)
            losses = take_step(self.task, batch, world=self.world, training=self.training)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            done = batch.step + 1
            self._add(done, losses)
            if self.cadence.reports(done):
                self._report(done, epoch=batch.epoch + 1, learning_rate=rate)
            if self.cadence.saves(done):
                self._save(done)

    def _learning_rate(self, step: int) -> float:
        return learning_rate_at(
            step,
            total_steps=self.plan.total_steps,
            peak=self.training.learning_rate,
            warmup_fraction=self.training.warmup_fraction,
        )

    def _open_log(self, held: contextlib.ExitStack) -> None:
        self.log = held.enter_context(RunLog(self.folder, step=self.start, say=self.say))

    def _add(self, step: int, losses: Any) -> None:
        self._names = [each.name for each in fields(losses)]
        row = torch.stack([getattr(losses, name).detach().float() for name in self._names]).tolist()
        if not all(map(math.isfinite, row)):
            raise TrainingError(
                f"the loss is not finite at step {step} ({row[0]:g}): the run stops. Last good checkpoint: "
                f"{self.checkpoints.last_good()}. Try a smaller learning_rate or precision='fp32'."
            )
        self._rows.append(row)

    def _report(self, step: int, *, epoch: int, learning_rate: float) -> None:
        means = [math.fsum(column) / len(column) for column in zip(*self._rows, strict=True)]
        self._rows, self.last = [], dict(zip(self._names, means, strict=True))
        seconds = time.monotonic() - self._began
        rate = (step - self.start) * self.plan.batch / max(seconds, 1e-9)
        speed = {"seconds": round(seconds, 3), "videos_per_second": round(rate, 2)}
        record = {"epoch": epoch, **self.last, "learning_rate": learning_rate}
        self.world.on_main(lambda: self.log.write(step, record=record, speed=speed) if self.log else None)
        if time.monotonic() - self._told_at > 10.0 or step == self.plan.total_steps:
            told = "  ".join(f"{name} {value:.4f}" for name, value in self.last.items())
            self.say(f"{self.label}: step {step}/{self.plan.total_steps}  {told}  {rate:,.1f} videos/s")
            self._told_at = time.monotonic()

    def _save(self, step: int) -> None:
        check_weights(self.task.module, step=step, last_good=self.checkpoints.last_good())
        state: Mapping[str, Any] = {
            "unlogged": self._rows,
            "names": self._names,
            "circumstances": circumstances(self.world),
        }

        def write() -> None:
            if self.log is not None:
                self.log.sync()
            self.checkpoints.save(step=step, tensors=capture(self.task.module, self.optimizer), state=state)

        self.world.on_main(write)
        self.cadence.saved()
