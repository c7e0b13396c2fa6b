"""What a step's losses become, and when they stop the run."""

from __future__ import annotations

import pytest
import torch

from scalefast.errors import TrainingError
from scalefast.pretraining import PretrainingLosses
from scalefast.training.metrics import METRICS, Meter


def losses(value: float, *, overflow: bool = False) -> PretrainingLosses:
    return PretrainingLosses(*(torch.tensor(value) for _ in METRICS), overflow=torch.tensor(overflow))


def test_the_mean_is_over_the_steps_since_the_last_line():
    meter = Meter(last_good=lambda: "none")
    for value in (1.0, 2.0):
        meter.add(losses(value))
    assert meter.mean() == dict.fromkeys(METRICS, 1.5)
    meter.add(losses(5.0))
    assert meter.mean() == dict.fromkeys(METRICS, 5.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step(value):
    meter = Meter(last_good=lambda: "step 40", step=40)
    meter.add(losses(1.0))
    meter.add(losses(value))
    with pytest.raises(TrainingError, match=r"not finite at step 42.*Last good checkpoint: step 40"):
        meter.read()


def test_clips_left_out_of_the_loss_stop_the_run():
    meter = Meter(last_good=lambda: "step 40", step=40)
    meter.add(losses(1.0, overflow=True))
    with pytest.raises(
        TrainingError, match=r"at step 41 more clips were masked.*Last good checkpoint: step 40"
    ):
        meter.read()
