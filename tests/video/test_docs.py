"""The examples of docs/decoding.md run as they stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "decoding.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, render: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    for name in ("run/0001.mp4", "videos/run/0001.mp4", "videos/walk/0002.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        render(tmp_path / name, frames=70)
    (tmp_path / "videos/walk/0003.mp4").write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_loading(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES[0], str(DOCUMENT), "exec"), {})
    assert capsys.readouterr().out == "(16, 16, 224, 224, 3) 70 ok\n"


def test_dali(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is not installed (extra dali)")
    exec(compile(EXAMPLES[1], str(DOCUMENT), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"{name} torch.Size([16, 16, 224, 224, 3]) pyav" for name in ("run/0001.mp4", "walk/0002.mp4")
    ]
    assert re.fullmatch(r"walk/0003.mp4 .*unreadable: FFmpeg cannot open it.*", lines[2])
    assert len(EXAMPLES) == 2 and len(lines) == 3
