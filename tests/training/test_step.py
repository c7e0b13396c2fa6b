"""A step, captured or not: what is captured starts where the run stands and leaves the same weights."""

from __future__ import annotations

import pytest
import torch

from scalefast.errors import InputError
from scalefast.training import pretrain, step

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def as_if_captured(monkeypatch):
    """A capture as CUDA's, on a CPU: three warm-up steps are taken, the captured one is not, replays are.

    What it cannot show is whether CUDA would capture the step; tests/gpu does.
    """
    counts = {"warm-up": 0, "captured": 0, "replays": 0}

    def capture(compute):
        for _ in range(step._WARM_UP):
            compute()
            counts["warm-up"] += 1
        counts["captured"] += 1

        def replay():
            counts["replays"] += 1
            return compute()

        return replay

    monkeypatch.setattr(step, "captures", lambda **_: (True, ""))
    monkeypatch.setattr(step, "capture_graph", capture)
    return counts


def weights(folder):
    return (folder / "pretraining.safetensors").read_bytes(), (folder / "log.jsonl").read_bytes()


def test_a_captured_run_is_the_eager_one(store, config, tmp_path, as_if_captured, monkeypatch):
    captured = pretrain(store, out=tmp_path / "captured", config=config, progress=False)
    assert as_if_captured == {"warm-up": 3, "captured": 1, "replays": captured.steps}
    monkeypatch.undo()
    pretrain(store, out=tmp_path / "eager", config=config, progress=False)
    assert weights(tmp_path / "captured") == weights(tmp_path / "eager")


def test_a_resumed_run_captures_from_where_it_stands(store, config, tmp_path, as_if_captured, monkeypatch):
    """The optimiser's moments exist then, and the warm-up must not leave a trace in them either."""
    whole = pretrain(store, out=tmp_path / "whole", config=config, progress=False)
    half = config.replace(checkpoint_every=max(1, whole.steps // 2))
    pretrain(store, out=tmp_path / "half", config=half, progress=False)
    (tmp_path / "half" / "pretraining.safetensors").unlink()
    newest = max((tmp_path / "half" / "checkpoints").iterdir())
    if len(list((tmp_path / "half" / "checkpoints").iterdir())) > 1:
        newest.unlink()
    resumed = pretrain(store, out=tmp_path / "half", config=half, resume=True, progress=False)
    assert 0 < resumed.resumed_from < whole.steps
    assert weights(tmp_path / "half")[0] == weights(tmp_path / "whole")[0]


def test_a_capture_that_fails_is_said_and_changes_nothing(store, config, tmp_path, monkeypatch):
    def capture(compute):
        compute()
        raise RuntimeError("operation not permitted when stream is capturing\nat some line")

    monkeypatch.setattr(step, "captures", lambda **_: (True, ""))
    monkeypatch.setattr(step, "capture_graph", capture)
    result = pretrain(store, out=tmp_path / "failed", config=config, progress=False)
    said = "steps are not captured in a CUDA graph: operation not permitted when stream is capturing"
    assert said in result.notes
    monkeypatch.undo()
    pretrain(store, out=tmp_path / "eager", config=config, progress=False)
    assert weights(tmp_path / "failed") == weights(tmp_path / "eager")


@pytest.mark.parametrize(
    ("device", "processes", "backend", "wish", "expected"),
    [
        (CPU, 1, None, None, (False, "")),
        (CPU, 2, "gloo", None, (False, "")),
        (CUDA, 1, None, None, (True, "")),
        (CUDA, 1, None, "0", (False, "SCALEFAST_CUDA_GRAPHS=0")),
        (CUDA, 2, "nccl", None, (True, "")),
        (
            CUDA,
            2,
            "gloo",
            None,
            (False, "2 processes exchange gradients by gloo, and only NCCL can be captured"),
        ),
    ],
)
def test_when_steps_are_captured(device, processes, backend, wish, expected, monkeypatch):
    monkeypatch.setattr(step.dist, "get_backend", lambda: backend)
    monkeypatch.delenv("SCALEFAST_CUDA_GRAPHS", raising=False)
    if wish is not None:
        monkeypatch.setenv("SCALEFAST_CUDA_GRAPHS", wish)
    assert step.captures(device=device, processes=processes) == expected


def test_an_unknown_wish_is_refused(monkeypatch):
    monkeypatch.setenv("SCALEFAST_CUDA_GRAPHS", "yes")
    with pytest.raises(InputError, match="must be 0 or 1; got 'yes'"):
        step.captures(device=CPU, processes=1)
