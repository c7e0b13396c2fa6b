"""What the README shows runs as it stands, and the files that the documents point at exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scalefast import cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "kernels/*/README.md", "benchmarks/results/README.md")
    for path in ROOT.glob(pattern)
)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_python_examples_run(root, tmp_path):
    """All in one process and in order, as a reader would paste them, outside the checkout."""
    examples = blocks((root / "README.md").read_text(), "python")
    assert len(examples) == 2
    check = "\nassert video.shape == (64, 256) and video.isfinite().all()\n"
    code = (
        "import torch; torch.set_num_threads(1); torch.manual_seed(0)\n" + examples[0] + check + examples[1]
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^loss \d+\.\d+, \d+% of the masked clips found$", done.stdout, re.MULTILINE)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def commands(root) -> list[list[str]]:
    lines = "\n".join(blocks((root / "README.md").read_text(), "sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def test_the_command_lines_parse(root, monkeypatch):
    """Every `scalefast ...` of the README has options that its verb takes; what the verb does is left out."""
    shown = [words[1:] for words in commands(root) if words[:1] == ["scalefast"]]
    assert {words[0] for words in shown} == set(cli.VERBS)
    import importlib

    for words in shown:
        monkeypatch.setattr(importlib.import_module(f"scalefast.cli.{words[0]}"), "run", lambda args: 0)
        assert cli.main(words) == 0, words


def test_the_make_targets_exist(root):
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), flags=re.MULTILINE))
    named = {words[1] for words in commands(root) if words[:1] == ["make"]}
    named |= set(re.findall(r"`make ([a-z]+)", (root / "README.md").read_text()))
    assert {"demo", "test", "bench", "gpu"} <= named <= targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document, root):
    text = (root / document).read_text()
    for link in re.findall(r"\]\(([^)#\s]+)\)", text):
        if not link.startswith("https://"):
            assert ((root / document).parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_paths_exist(document, root):
    """Paths in backticks that begin with a folder of the project."""
    text = (root / document).read_text()
    named = re.findall(r"`((?:scalefast|kernels|tests|benchmarks|examples|docs|\.ci)/[\w./-]*)`", text)
    assert named or document not in ("README.md", "CONTRIBUTING.md", "docs/recipe.md")
    for path in named:
        assert (root / path).exists(), path


def test_the_change_log_names_every_verb(root):
    (sentence,) = re.findall(r"with the verbs ([^.]*)\.", (root / "CHANGELOG.md").read_text())
    assert set(re.split(r",\s+|\s+and\s+", sentence)) == set(cli.VERBS)


def test_every_document_is_listed(root):
    index = (root / "docs" / "README.md").read_text()
    for path in (root / "docs").glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index, path.name
