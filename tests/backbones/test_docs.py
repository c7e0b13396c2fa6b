"""The Python examples of docs/backbones.md run, in order, and say what they say."""

from __future__ import annotations

import re
from pathlib import Path

from scalefast.backbones import REGISTRY, FrozenBackbone

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"


def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["features"].shape == (8, 256)  # type: ignore[attr-defined]
    assert isinstance(names["backbone"], FrozenBackbone) and (tmp_path / "my-encoder").is_dir()


def test_every_name_is_on_the_page():
    page = PAGE.read_text(encoding="utf-8").replace("`-h`, `-g`", "`vjepa2-h`, `vjepa2-g`")
    assert [name for name in REGISTRY if f"`{name}`" not in page] == []
