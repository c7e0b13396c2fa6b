"""Checkpoints: whole or not there, checked when read, the last two kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from scalefast import hub
from scalefast.errors import DataError, TrainingError
from scalefast.training.checkpoint import Checkpoints, disk_errors, read_checkpoint

TENSORS = {
    "task/weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "task/half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
    "step/weight": torch.tensor(7.0),
    "task/empty": torch.zeros(0, 3),
}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def fail(note: str) -> None:
    raise AssertionError(f"nothing should be said, but: {note}")


def test_round_trip(checkpoints: Checkpoints) -> None:
    path = checkpoints.save(step=7, tensors=TENSORS, state={"unlogged": [[0.1, 1e-300]]})
    found = checkpoints.load_newest(fail)
    assert found is not None
    assert (found.step, found.path, found.state) == (7, path, {"unlogged": [[0.1, 1e-300]]})
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name].nan_to_num(9), tensor.nan_to_num(9))
        assert found.tensors[name].shape == tensor.shape


def test_none_without_checkpoints(checkpoints: Checkpoints) -> None:
    assert checkpoints.load_newest(fail) is None
    assert checkpoints.last_good() == "none was saved yet"


def test_the_last_two_are_kept_in_the_order_of_steps(checkpoints: Checkpoints) -> None:
    for step in (3, 900, 1000, 10):  # 10 last: a run that was resumed from further back overtakes nothing
        checkpoints.save(step=step, tensors=TENSORS, state={})
    assert [path.name for path in checkpoints.paths()] == [
        "step-00001000.safetensors",
        "step-00000900.safetensors",
    ]


def test_every_flipped_bit_is_refused(checkpoints: Checkpoints) -> None:
    """Each byte of the file with one bit flipped: refused, or (padding of the header) of no consequence."""
    path = checkpoints.save(step=7, tensors=TENSORS, state={"unlogged": []})
    whole = path.read_bytes()
    harmless = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            found = read_checkpoint(path)
        except DataError as error:
            assert str(path) in str(error)
        else:
            harmless += 1
            assert all(found.tensors[n].equal(t) for n, t in TENSORS.items() if n != "task/half")
            assert found.step == 7
    assert harmless <= 8  # spaces that align the header


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_newest_falls_back_and_says_so(checkpoints: Checkpoints, damage: str) -> None:
    checkpoints.save(step=1, tensors=TENSORS, state={})
    newest = checkpoints.save(step=2, tensors=TENSORS, state={})
    content = bytearray(newest.read_bytes())
    content[-20] ^= 4
    newest.write_bytes(
        {"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b"", "text": b"not a checkpoint"}[
            damage
        ]
    )
    said: list[str] = []
    found = checkpoints.load_newest(said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert said[0].startswith(f"checkpoint {newest} is damaged (")
    assert said[0].endswith("going on from step-00000001.safetensors instead")


def test_all_damaged_is_an_error_that_names_them(checkpoints: Checkpoints) -> None:
    paths = [checkpoints.save(step=step, tensors=TENSORS, state={}) for step in (1, 2)]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrainingError, match="no intact checkpoint to resume from") as caught:
        checkpoints.load_newest(fail)
    assert all(str(path) in str(caught.value) for path in paths)


def test_a_full_disk_raises_and_leaves_the_previous(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = checkpoints.save(step=1, tensors=TENSORS, state={})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(hub.os, "fsync", full)
        with pytest.raises(TrainingError) as caught:
            checkpoints.save(step=2, tensors=TENSORS, state={})
    assert str(caught.value) == (
        f"{checkpoints.folder / 'step-00000002.safetensors'} cannot be written (No space left on device). "
        f"Make room and resume; last good checkpoint: {previous}"
    )
    assert [entry.name for entry in checkpoints.folder.iterdir()] == [previous.name]
    found = checkpoints.load_newest(fail)
    assert found is not None
    assert found.step == 1


def test_a_write_that_stops_half_way_leaves_the_previous(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses in the middle of the file: a limit on file size, below the checkpoint's."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    previous = checkpoints.save(step=1, tensors=TENSORS, state={})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(
            TrainingError, match=r"step-00000002.safetensors cannot be written \(File too large\)"
        ):
            checkpoints.save(step=2, tensors=TENSORS, state={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [entry.name for entry in checkpoints.folder.iterdir()] == [previous.name]
    assert read_checkpoint(previous).step == 1


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (errno.ENOSPC, "Make room and resume."),
        (errno.EFBIG, "Make room and resume."),
        (errno.EROFS, "Make it writable and resume."),
        (errno.EACCES, "Make it writable and resume."),
    ],
)
def test_advice_fits_the_refusal(tmp_path: Path, reason: int, advice: str) -> None:
    with pytest.raises(TrainingError) as caught, disk_errors(tmp_path, advice="Make room and resume."):
        raise OSError(reason, os.strerror(reason))
    assert str(caught.value) == f"{tmp_path} cannot be written ({os.strerror(reason)}). {advice}"
