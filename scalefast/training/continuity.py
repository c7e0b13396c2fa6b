"""What every run does around its steps, whatever it trains: take up where it stopped, report and save in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from scalefast.errors import TrainingError
from scalefast.training.checkpoint import Checkpoint, Checkpoints
from scalefast.training.distributed import World

__all__ = ["Cadence", "newest_checkpoint"]

_SECONDS_BETWEEN_CHECKPOINTS = 60.0


def newest_checkpoint(
    checkpoints: Checkpoints, *, world: World, folder: Path, say: Callable[[str], None]
) -> Checkpoint | None:
    """The newest intact checkpoint of a run, the same for all processes; None where there is none yet, which is said.

    Args:
        checkpoints: of the run.
        world: the processes that take part.
        folder: of the run, for messages.
        say: takes notes.

    Raises:
        TrainingError: all checkpoints are damaged, or the processes do not see the same one.
    """
    found = checkpoints.load_newest(say)
    step = found.step if found else 0
    agreed = world.on_main(lambda: step)
    if step != agreed:
        raise TrainingError(
            f"process {world.rank} finds a checkpoint of step {step} and process 0 one of step {agreed}: "
            f"{folder} must lie where all processes see the same files"
        )
    if found is None:
        say(f"{folder} holds no checkpoint yet: the run begins at its first step")
    return found


class Cadence:
    """After which steps a run writes a line of its log, and after which a checkpoint.

    Args:
        log_every: steps from one line to the next.
        checkpoint_every: steps from one checkpoint to the next; None: about a minute, by the clock of process 0.
        total_steps: of the whole run, whose last step does both.
        world: the processes, which decide together.
    """

    def __init__(
        self, *, log_every: int, checkpoint_every: int | None, total_steps: int, world: World
    ) -> None:
        self._log_every, self._checkpoint_every = log_every, checkpoint_every
        self._total, self._world = total_steps, world
        self.saved()

    def reports(self, step: int) -> bool:
        """Whether a line of the log follows the step that completes `step` steps."""
        return step % self._log_every == 0 or step == self._total

    def saves(self, step: int) -> bool:
        """Whether a checkpoint does."""
        if step == self._total:
            return True
        if self._checkpoint_every is not None:
            return step % self._checkpoint_every == 0
        if not self.reports(
            step
        ):  # the clock is looked at only where the processes wait for each other anyway
            return False
        return self._world.on_main(lambda: time.monotonic() - self._saved_at > _SECONDS_BETWEEN_CHECKPOINTS)

    def saved(self) -> None:
        """A checkpoint was written now, or the run begins."""
        self._saved_at = time.monotonic()
