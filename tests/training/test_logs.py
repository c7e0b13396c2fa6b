"""The logs: reproducible lines, cut to the resumed step, curves that go on, and a full disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scalefast.errors import TrainingError
from scalefast.training.logs import LOG_NAME, SPEED_NAME, RunLog, read_log


def write(folder: Path, steps: list[int], *, start: int = 0) -> list[str]:
    said: list[str] = []
    with RunLog(folder, step=start, say=said.append) as log:
        for step in steps:
            log.write(step, record={"loss": 1 / step}, speed={"videos_per_second": 2.0 * step})
        log.sync()
    return said


def test_lines_hold_the_step_and_exact_numbers(tmp_path: Path) -> None:
    assert write(tmp_path, [3, 6]) == []
    assert read_log(tmp_path / LOG_NAME) == [{"step": 3, "loss": 1 / 3}, {"step": 6, "loss": 1 / 6}]
    assert read_log(tmp_path / SPEED_NAME)[1] == {"step": 6, "videos_per_second": 12.0}


@pytest.mark.parametrize("tail", ["", '{"step": 12, "lo', '{"step": 12}', "\x00\x00\x00\n", "[1]\n"])
def test_lines_beyond_the_resumed_step_and_torn_ones_go(tmp_path: Path, tail: str) -> None:
    write(tmp_path, [3, 6, 9])
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write(tail)
    write(tmp_path, [7, 14], start=6)
    assert [line["step"] for line in read_log(tmp_path / LOG_NAME)] == [3, 6, 7, 14]
    assert [line["step"] for line in read_log(tmp_path / SPEED_NAME)] == [3, 6, 7, 14]


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, [3])
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write('{"step": 6')
    assert [line["step"] for line in read_log(tmp_path / LOG_NAME)] == [3]
    assert read_log(tmp_path / "absent.jsonl") == []


def test_tensorboards_curve_goes_on_without_a_double_point(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(tmp_path, [3, 6, 9])
    write(tmp_path, [7, 14], start=6)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("pretrain/loss")] == [3, 6, 7, 14]
    assert events.Scalars("pretrain/videos_per_second")[-1].value == 28.0


def test_without_tensorboard_it_is_said_once_and_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    said = write(tmp_path, [3, 6])
    assert len(said) == 1
    assert "pip install 'scalefast[report]'" in said[0]
    assert len(read_log(tmp_path / LOG_NAME)) == 2
    assert not (tmp_path / "tensorboard").exists()


def test_a_full_disk_is_a_training_error(tmp_path: Path) -> None:
    """/dev/full refuses every write with ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with RunLog(tmp_path, step=0, say=lambda note: None) as log, open("/dev/full", "ab", buffering=0) as full:
        path = tmp_path / LOG_NAME
        log._files[path].close()
        log._files[path] = full
        with pytest.raises(TrainingError, match=r"log.jsonl cannot be written \(No space left on device\)"):
            log.write(3, record={"loss": 1.0}, speed={})
