"""What the training loop works with, and what happens around it: going on, reporting, saving, finishing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scalefast.hub import save_weights
from scalefast.pretraining import SCALEPretraining
from scalefast.training.bank import Bank
from scalefast.training.checkpoint import Checkpoints, disk_errors
from scalefast.training.circumstances import changed_since, circumstances
from scalefast.training.config import PretrainConfig
from scalefast.training.continuity import Cadence, newest_checkpoint
from scalefast.training.distributed import World
from scalefast.training.logs import RunLog
from scalefast.training.metrics import Meter, metrics_of
from scalefast.training.progress import Progress
from scalefast.training.run_folder import TASK_NAME, RunFolder
from scalefast.training.sampler import BatchPlan
from scalefast.training.schedule import build_optimizer
from scalefast.training.state import capture, check_weights, restore
from scalefast.training.step import captures

__all__ = ["Session"]


@dataclass(kw_only=True)
class Session:
    """One process's part of a run, from start or resume to its end."""

    config: PretrainConfig
    world: World
    folder: RunFolder
    bank: Bank
    task: SCALEPretraining
    progress: Progress

    def __post_init__(self) -> None:
        config = self.config
        self.plan = BatchPlan(
            num_videos=len(self.bank), batch_size=config.batch_size, epochs=config.epochs, seed=config.seed
        )
        self.plan.share(0, rank=self.world.rank, world_size=self.world.size)  # refuses too many processes now
        captured, _ = captures(device=self.world.device, processes=self.world.size)
        self.optimizer = build_optimizer(
            self.task,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            captured=captured,
        )
        self.checkpoints = Checkpoints(self.folder.checkpoints)
        self.cadence = Cadence(
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            total_steps=self.plan.total_steps,
            world=self.world,
        )
        self.meter = self._meter()
        self.log: RunLog | None = None
        self.start = 0
        """Completed steps when this session begins."""

    @property
    def autocast(self) -> torch.autocast:
        """The context in which the forward pass runs."""
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=enabled)

    def resume(self) -> None:
        """Take up the run where its newest intact checkpoint left it; without one, at its beginning.

        Raises:
            TrainingError: all checkpoints are damaged, or the processes do not see the same one.
        """
        found = newest_checkpoint(
            self.checkpoints, world=self.world, folder=self.folder.path, say=self.progress.say
        )
        if found is None:
            return
        self.start = found.step
        restore(found.tensors, self.task, self.optimizer, source=str(found.path))
        if (changed := changed_since(found.state["circumstances"], self.world)) is not None:
            self.progress.say(changed)
        self.meter = self._meter(step=found.step, rows=found.state["unlogged"])
        self.progress.say(f"going on after step {found.step} of {self.plan.total_steps} ({found.path.name})")

    def _meter(self, *, step: int = 0, rows: Sequence[Sequence[float]] = ()) -> Meter:
        names = metrics_of(self.config.objective)
        return Meter(last_good=self.checkpoints.last_good, names=names, step=step, rows=rows)

    def begin(self, held: contextlib.ExitStack) -> None:
        """Say what the run leaves out, open the log (in process 0, closed by `held`), and start the clocks.

        Raises:
            TrainingError: the disk refuses.
        """
        plan = self.plan
        if plan.dropped:
            self.progress.say(
                f"{plan.num_videos} videos in batches of {plan.batch}: every epoch leaves out "
                f"{plan.dropped}, drawn anew each time"
            )
        if plan.batch < plan.batch_size:
            self.progress.say(
                f"a batch holds all {plan.batch} videos of the store (batch_size is {plan.batch_size})"
            )
        self.world.on_main(lambda: self._open_log(held))
        self.cadence.saved()
        self.progress.start(
            step=self.start, total=plan.total_steps, videos=plan.batch, views=self.config.views
        )

    def _open_log(self, held: contextlib.ExitStack) -> None:
        self.log = held.enter_context(RunLog(self.folder.path, step=self.start, say=self.progress.say))

    def reports(self, step: int) -> bool:
        """Whether a line of the log follows the step that completes `step` steps."""
        return self.cadence.reports(step)

    def report(self, step: int, *, learning_rate: float) -> None:
        """Write a line of the log and show progress.

        Raises:
            TrainingError: a loss since the last line was not finite, or the disk refuses.
        """
        losses = self.meter.mean()
        speed = self.progress.advance(step, losses)
        epoch = (step - 1) // self.plan.steps_per_epoch + 1
        record = {"epoch": epoch, **losses, "learning_rate": learning_rate}
        self.world.on_main(lambda: self.log.write(step, record=record, speed=speed) if self.log else None)

    def saves(self, step: int) -> bool:
        """Whether to save now: at the end, and every `checkpoint_every` steps or about every minute."""
        return self.cadence.saves(step)

    def save(self, step: int) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: a loss or a weight is not finite (nothing is written), or the disk refuses.
        """
        unlogged = self.meter.read()
        check_weights(self.task, step=step, last_good=self.checkpoints.last_good())

        def write() -> None:
            if self.log is not None:
                self.log.sync()
            tensors = capture(self.task, self.optimizer)
            self.checkpoints.save(
                step=step,
                tensors=tensors,
                state={"unlogged": unlogged, "circumstances": circumstances(self.world)},
            )

        self.world.on_main(write)
        self.cadence.saved()

    def finish(self) -> None:
        """Write the trained aggregator and the whole task."""
        with disk_errors(self.folder.path, advice="Make room and resume."):
            self.task.model.save_pretrained(self.folder.path)
            save_weights(self.task.state_dict(), self.folder.path / TASK_NAME)
