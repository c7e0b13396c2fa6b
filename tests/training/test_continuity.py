"""When runs report and save, and that their processes go on from one checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefast.errors import TrainingError
from scalefast.training import continuity
from scalefast.training.continuity import Cadence, newest_checkpoint

ALONE = SimpleNamespace(rank=0, on_main=lambda function: function())


@given(total=st.integers(1, 40), every=st.integers(1, 50), checkpoint_every=st.integers(1, 50))
def test_every_nth_step_and_the_last(total, every, checkpoint_every):
    cadence = Cadence(log_every=every, checkpoint_every=checkpoint_every, total_steps=total, world=ALONE)
    steps = range(1, total + 1)
    assert [step for step in steps if cadence.reports(step)] == sorted(
        {*range(every, total + 1, every), total}
    )
    expected = sorted({*range(checkpoint_every, total + 1, checkpoint_every), total})
    assert [step for step in steps if cadence.saves(step)] == expected


def test_without_a_number_about_a_minute_passes_between_checkpoints(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(continuity.time, "monotonic", lambda: now[0])
    cadence = Cadence(log_every=2, checkpoint_every=None, total_steps=100, world=ALONE)
    saved = []
    for step in range(1, 14):
        now[0] += 25.0
        if cadence.saves(step):
            saved.append(step)
            cadence.saved()
    assert saved == [4, 8, 12]  # after 100 s: more than a minute, and a step that is reported


def test_processes_that_see_different_checkpoints_are_refused(tmp_path):
    found = SimpleNamespace(step=7)
    checkpoints = SimpleNamespace(load_newest=lambda say: found)
    said: list[str] = []
    options = {"folder": tmp_path, "say": said.append}
    assert newest_checkpoint(checkpoints, world=ALONE, **options) is found and said == []
    other = SimpleNamespace(rank=1, on_main=lambda function: 9)
    with pytest.raises(
        TrainingError, match="process 1 finds a checkpoint of step 7 and process 0 one of step 9"
    ):
        newest_checkpoint(checkpoints, world=other, **options)
    checkpoints = SimpleNamespace(load_newest=lambda say: None)
    assert newest_checkpoint(checkpoints, world=ALONE, **options) is None
    assert said == [f"{tmp_path} holds no checkpoint yet: the run begins at its first step"]
