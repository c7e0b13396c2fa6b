"""docs/search.md runs as it stands."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from scalefast import cli, load_backbone
from scalefast.features import extract
from scalefast.video import VideoList, test_recipe

DOCUMENT = Path(__file__).parents[2] / "docs" / "search.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_python_example(
    films: Any, render_film: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("archery/v_001.mp4", "archery/v_014.mp4", "bowling/v_002.mp4")):
        render_film(tmp_path / "videos" / name, seed=seed, frames=90)
    render_film(tmp_path / "holiday.mp4", seed=0, frames=90)
    backbone = load_backbone("r3d-tiny", device="cpu", dtype="fp32")
    recipe = test_recipe(num_frames=backbone.num_frames, stride=1, size=backbone.size, temporal=3, spatial=1)
    videos = VideoList.read(tmp_path / "videos")
    extract(videos, backbone=backbone, out="test.store", recipe=recipe, workers=1, progress=False)
    films.model.save_pretrained("RUN")
    (example,) = blocks("python")
    exec(compile(example, str(DOCUMENT), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    videos_found = [line.split() for line in lines if "." not in line.split()[0]]
    assert [words[0] for words in videos_found] == ["1", "2", "3"]
    assert videos_found[0][1] == "archery/v_001.mp4" and videos_found[0][3] == "archery"
    assert 3 <= len(lines) - len(videos_found) <= 6, "one or two moments each"


def test_command_lines_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [shlex.split(line, comments=True)[1:] for line in blocks("")[0].splitlines()]
    assert {line[0] for line in words} == {"search", "app"}
    for line in words:
        monkeypatch.setattr(importlib.import_module(f"scalefast.cli.{line[0]}"), "run", lambda args: 0)
        assert cli.main(line) == 0, line
