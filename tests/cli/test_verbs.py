"""Every verb has help that a person can follow, and an extra that one verb lacks stops no other."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import subprocess
import sys

import pytest

from scalefast import cli


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: scalefast {verb}" in text
    assert max(map(len, text.splitlines())) <= 100
    options = importlib.import_module(f"scalefast.cli.{verb}").Args
    assert dataclasses.is_dataclass(options)
    summary = " ".join(options.__doc__.split("\n\n")[0].split())
    assert not summary.startswith("Args("), "the options have no docstring"
    assert " ".join(text.split()).startswith(summary)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_option_has_a_help_text(verb, capsys):
    """Each option's row holds words beside its name, value and default."""
    cli.main([verb, "--help"])
    rows = [row.strip("│ ") for row in capsys.readouterr().out.splitlines() if row.startswith("│")]
    for row, following in itertools.pairwise([*rows, ""]):
        if row.startswith("--"):
            words = row.split("  ", maxsplit=1)
            text = words[1] if len(words) == 2 else following  # a long name has its text on the next row
            assert text.strip() and not text.strip().startswith(("(default", "(required", "--")), row


@pytest.mark.parametrize("verb", cli.VERBS)
def test_none_is_not_a_word_to_type(verb, capsys):
    """An option that may be left out is left out: no choice is called None."""
    cli.main([verb, "--help"])
    assert "None" not in capsys.readouterr().out.replace(verb, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--precision", "bf16"], "bf16"),
        ([], None),
        (["--precision", "None"], 2),
        (["--precision", "fp8"], 2),
    ],
)
def test_an_optional_choice_is_one_of_its_words(words, expected, monkeypatch, capsys):
    module = importlib.import_module("scalefast.cli.pretrain")
    taken = []
    monkeypatch.setattr(module, "run", lambda args: taken.append(args.precision) or 0)
    status = cli.main(["pretrain", "store", "--out", "run", "--calibrated", "True", *words])
    assert [status] == ([2] if expected == 2 else [0])
    assert taken == ([] if expected == 2 else [expected])
    if expected == 2:
        told = " ".join(capsys.readouterr().err.split())
        assert "invalid choice" in told.lower() and "'auto'" in told and "'bf16'" in told


@pytest.mark.parametrize(
    "verb", [verb for verb in cli.VERBS if verb not in ("precompile", "doctor", "backbones")]
)
def test_a_verb_without_its_required_options_says_which(verb, capsys):
    assert cli.main([verb]) == 2
    assert "required" in capsys.readouterr().err.lower()


def test_the_verbs_load_without_the_extras():
    """With every optional package hidden, each verb still parses its options and prints its help."""
    code = """
import sys
for name in ("av", "transformers", "matplotlib", "tensorboard", "sklearn", "triton", "PIL"):
    sys.modules[name] = None
from scalefast import cli
for verb in cli.VERBS:
    assert cli.main([verb, "--help"]) == 0, verb
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("hidden", "extra", "words"), [("av", "video", ["scan", ".", "--out", "ledger.csv"])]
)
def test_a_missing_extra_is_named(hidden, extra, words, tmp_path):
    code = (
        f"import sys; sys.modules[{hidden!r}] = None\n"
        f"from scalefast.cli import main; sys.exit(main({words!r}))"
    )
    (tmp_path / "a.mp4").write_bytes(b"x")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and f"pip install 'scalefast[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
