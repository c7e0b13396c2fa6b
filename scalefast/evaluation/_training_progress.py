"""How far the trainings of heads are: a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from scalefast._progress import clock

__all__ = ["TrainingProgress"]

_LINE_SECONDS = 10.0


class TrainingProgress:
    """Counts trainings and what their steps cost, and says how long still.

    Args:
        label: what is being done.
        names: of the heads.
        say: is told.
        now: seconds, from any start.
    """

    def __init__(
        self,
        *,
        label: str,
        names: Sequence[str],
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._names, self._say, self._now = label, names, say, now
        self._costs: Sequence[float] = ()
        self._trainings, self._work = 0, 0.0
        self._members: Sequence[int] = ()
        self._first, self._done = 0, 0.0
        self._began = self._shown = now()

    def plan(self, costs: Sequence[float], *, steps: int, trainings: int) -> None:
        """What is to come.

        Args:
            costs: of a step of each head, in any unit.
            steps: of all trainings of a head.
            trainings: of a head.
        """
        self._costs, self._work, self._trainings = costs, steps * sum(costs), trainings * len(costs)

    def begin(self, heads: Sequence[int]) -> None:
        """Trainings begin, at once, of heads with these numbers."""
        self._first += len(self._members)
        self._members = heads

    def step(self) -> None:
        """A step of what has begun is done."""
        self._done += sum(self._costs[i] for i in self._members)
        if self._now() - self._shown >= _LINE_SECONDS:
            self._shown = self._now()
            self._say(self.line())

    def line(self) -> str:
        """`nonlinear: training 17 of 40 (scratch), about 1 min 20 s left`."""
        first, last = self._first + 1, self._first + len(self._members)
        which = f"training {first}" if first == last else f"trainings {first} to {last}"
        names = ", ".join(dict.fromkeys(self._names[i] for i in self._members))
        left = (self._now() - self._began) * (self._work / self._done - 1)
        return f"{self._label}: {which} of {self._trainings} ({names}), about {clock(max(left, 0))} left"
