"""Which of several trainings a head gets: learning rates first, the worse of them not to the end, then weight decays.

Whatever decides is accuracy on a validation split of the training videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from scalefast.evaluation._training import Training

__all__ = ["Score", "choose", "planned"]

Score = dict[str, Any]
"""What a training reached on the validation split, JSON-able: `accuracy` and `loss`, beside what it was."""

BRIEF = 4
"""A learning rate is first trained with for one part in so many of the epochs."""
FINALISTS = 2
"""Learning rates that are then trained with to the end."""


def choose(
    choices: Sequence[Training], *, heads: int, scores_of: Callable[[list[list[Training]]], list[list[Score]]]
) -> tuple[list[Training], list[list[Score]]]:
    """Choose a training for each head.

    1. Every learning rate, with its first weight decay, for the first quarter of the epochs of its schedule.
    2. The best two from the start to the end.
    3. The better of the two with its other weight decays, to the end.

    Better is the higher accuracy, then the lower loss, then what stands first among the choices.

    Args:
        choices: learning rates, each with equally many weight decays.
        heads: how many there are.
        scores_of: is given trainings of each head, equally many, and gives what they reached.

    Returns:
        A training of each head, and all its scores in their order.
    """
    by_rate = _by_rate(choices)
    rates = [own[0] for own in by_rate.values()]
    tried: list[list[Score]] = [[] for _ in range(heads)]

    def best_first(asked: list[list[Training]]) -> list[list[tuple[Training, Score]]]:
        found = scores_of(asked)
        for own, scores in zip(tried, found, strict=True):
            own += scores
        return [_sorted(list(zip(*one, strict=True))) for one in zip(asked, found, strict=True)]

    left = [rates] * heads
    if len(rates) > FINALISTS:
        ranked = best_first([[_briefly(one) for one in rates]] * heads)
        names = [{one.learning_rate for one, _ in own[:FINALISTS]} for own in ranked]
        left = [[one for one in rates if one.learning_rate in kept] for kept in names]
    best = [own[0] for own in best_first(left)]
    others = [by_rate[training.learning_rate][1:] for training, _ in best]
    if others[0]:
        more = best_first(others)
        best = [_sorted([one, *own])[0] for one, own in zip(best, more, strict=True)]
    return [training for training, _ in best], tried


def planned(choices: Sequence[Training]) -> list[Training]:
    """As many trainings, and as long, as choosing takes for each head."""
    by_rate = list(_by_rate(choices).values())
    brief = [_briefly(own[0]) for own in by_rate] if len(by_rate) > FINALISTS else []
    return [*brief, *(own[0] for own in by_rate[:FINALISTS]), *by_rate[0][1:]]


def _by_rate(choices: Sequence[Training]) -> dict[float, list[Training]]:
    found: dict[float, list[Training]] = {}
    for one in choices:
        found.setdefault(one.learning_rate, []).append(one)
    assert len({len(own) for own in found.values()}) == 1, "as many weight decays with every learning rate"
    return found


def _briefly(training: Training) -> Training:
    """The beginning of a training, its schedule that of the whole."""
    schedule = training.schedule_epochs or training.epochs
    return replace(training, epochs=max(1, training.epochs // BRIEF), schedule_epochs=schedule)


def _sorted(found: list[tuple[Training, Score]]) -> list[tuple[Training, Score]]:
    return sorted(found, key=lambda one: (-one[1]["accuracy"], one[1]["loss"]))
