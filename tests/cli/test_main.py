"""The command line as a user meets it: messages, exit statuses, help."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
from dataclasses import dataclass

import pytest

from scalefast import __version__, cli
from scalefast.errors import InputError, MissingExtraError


@dataclass(frozen=True, kw_only=True)
class Nested:
    """A nested configuration."""

    epochs: int = 3
    """Passes."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs must be at least 1: {self.epochs = }")


@dataclass(frozen=True, kw_only=True)
class Args:
    """A verb for these tests."""

    config: Nested = Nested()
    """Configuration."""
    progress: bool = True
    """Bar."""


@pytest.fixture
def doctor_does(monkeypatch: pytest.MonkeyPatch):
    """Replaces what the verb `doctor` does by a given function of its options."""

    def install(run) -> None:
        module = types.SimpleNamespace(Args=Args, run=run)
        monkeypatch.setitem(sys.modules, "scalefast.cli.doctor", module)

    return install


def raiser(error: BaseException):
    def run(args: Args) -> int:
        raise error

    return run


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"scalefast {__version__}\n"


def test_help_names_every_verb_with_what_it_does(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb, what in cli.VERBS.items():
        assert f"  {verb}" in text and what in text


def test_no_verb_prints_the_help_and_is_an_error(capsys):
    assert cli.main([]) == 2
    assert "usage: scalefast VERB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("extrct", "extract"), ("pre-train", "pretrain"), ("docter", "doctor"), ("eval", "evaluate")],
)
def test_a_mistyped_verb_gets_a_suggestion(typed, meant, capsys):
    assert cli.main([typed]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: there is no verb {typed!r}; did you mean {meant!r}?\n"
    assert captured.out == ""


def test_a_strange_verb_gets_the_list(capsys):
    assert cli.main(["xyzzy"]) == 2
    assert "the verbs are scan, extract, " in capsys.readouterr().err


def test_an_option_before_the_verb_is_explained(capsys):
    assert cli.main(["--epochs", "3", "pretrain"]) == 2
    assert "'--epochs' stands before the verb" in capsys.readouterr().err


def test_options_of_a_nested_configuration_are_plain(doctor_does):
    seen = []
    doctor_does(lambda args: seen.append(args) or 0)
    assert cli.main(["doctor", "--epochs", "7", "--no-progress"]) == 0
    assert seen == [Args(config=Nested(epochs=7), progress=False)]


def test_a_value_that_the_configuration_refuses_is_told(doctor_does, capsys):
    doctor_does(raiser(AssertionError("never reached")))
    assert cli.main(["doctor", "--epochs", "0"]) == 2
    assert "epochs must be at least 1: self.epochs = 0" in capsys.readouterr().err


def test_a_wrong_option_exits_with_2_and_a_suggestion(doctor_does, capsys):
    doctor_does(raiser(AssertionError("never reached")))
    assert cli.main(["doctor", "--epoch", "3"]) == 2
    text = capsys.readouterr().err
    assert "--epoch" in text and "--epochs" in text


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_of_the_verb_is_the_exit_status(status, doctor_does):
    doctor_does(lambda args: status)
    assert cli.main(["doctor"]) == status


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("list.txt:3: expected 'path label'"), 2, "error: list.txt:3: expected 'path label'\n"),
        (MissingExtraError("the package 'av' is needed"), 2, "error: the package 'av' is needed\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), 2, "error: the disk is full: a.bin\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: the disk is full\n"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a"), 2, "error: the disk quota is used up: a\n"),
        (OSError(errno.EROFS, "Read-only file system", "a"), 2, "error: the file system is read-only: a\n"),
        (OSError(errno.EACCES, "Permission denied", "a"), 2, "error: permission denied: a\n"),
        (OSError(errno.ENOENT, "No such file or directory", "a"), 2, "error: no such file or folder: a\n"),
        (OSError(errno.EEXIST, "File exists", "a"), 2, "error: the path exists already: a\n"),
        (OSError(errno.ENOTDIR, "Not a directory", "a"), 2, "error: not a directory: a\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_that_a_user_can_act_on_are_one_line(error, status, message, doctor_does, capsys):
    doctor_does(raiser(error))
    assert cli.main(["doctor"]) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("error", [RuntimeError("a defect"), OSError(errno.EIO, "Input/output error", "a")])
def test_defects_keep_their_traceback(error, doctor_does):
    doctor_does(raiser(error))
    with pytest.raises(type(error)):
        cli.main(["doctor"])


def test_tracebacks_on_request(doctor_does, monkeypatch):
    monkeypatch.setenv("SCALEFAST_TRACEBACK", "1")
    doctor_does(raiser(InputError("a message")))
    with pytest.raises(InputError):
        cli.main(["doctor"])


def test_python_dash_m_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "scalefast", "frobnicate"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no verb 'frobnicate'")


def test_a_reader_that_goes_away_is_no_error():
    """`scalefast doctor | head -0`: the pipe's reading end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "scalefast", "doctor"], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_imports_neither_torch_nor_the_option_parser():
    code = (
        "import sys; from scalefast.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'tyro', 'av', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
