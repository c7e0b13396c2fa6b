"""docs/report.md runs as it stands."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from scalefast import cli

DOCUMENT = Path(__file__).parents[2] / "docs" / "report.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_python_example(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    for name, target in {
        "RUN": case.run,
        "TRAIN.store": case.train.path,
        "TEST.store": case.test.path,
        "videos/test": case.videos,
    }.items():
        (tmp_path / name).symlink_to(target)
    (example,) = blocks("python")
    values: dict[str, Any] = {}
    exec(compile(example, str(DOCUMENT), "exec"), values)
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    listed = re.findall(r"`([\w-]+)`", DOCUMENT.read_text().split("## Figures")[1].split(". They are")[0])
    assert set(values["page"].drawings) == set(listed)
    said = values["page"].to_dict()
    named = re.findall(r"`([a-z_]+)`", DOCUMENT.read_text().split("## JSON")[1])
    assert set(said) == set(named) - {"counts", "support"}


def test_command_line_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(blocks("")[0].replace("\\\n", " "))[1:]
    monkeypatch.setattr(importlib.import_module("scalefast.cli.report"), "run", lambda args: 0)
    assert cli.main(words) == 0
