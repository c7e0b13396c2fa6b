"""The Python examples of docs/cvrl.md run, in order."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cvrl.md"


def test_examples_run(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        shutil.copytree(videos.source, tmp_path / "videos" / split)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert 0 <= names["result"].losses["accuracy"] <= 1  # type: ignore[attr-defined]
    assert (tmp_path / "encoder" / "model.safetensors").is_file()
