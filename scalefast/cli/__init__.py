"""The command line: one verb a stage.

`scalefast VERB --help` explains a verb. Each verb is a module of this package with a frozen dataclass `Args`,
from which its options and their help are made, and `run(args) -> int`. A verb's module is imported when that
verb is called, so that `scalefast --help` is quick and an extra that one verb lacks does not stop another.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from scalefast._version import __version__
from scalefast.cli._restart import restart_without_small_block_caches
from scalefast.errors import ScalefastError

__all__ = ["VERBS", "main"]

VERBS = {
    "scan": "open every video of a list before anything expensive, and write a ledger",
    "extract": "decode videos once and keep a frozen backbone's clip features in a store",
    "backbones": "list the backbones: what each takes, gives and costs",
    "cvrl": "train a clip encoder on videos, without labels: a backbone of one's own",
    "finetune": "train a backbone with labels, all or some, and judge it",
    "pretrain": "train SCALE on a store, without labels",
    "windows": "cut long videos into windows, for a model on two levels",
    "evaluate": "k-NN, probes, retrieval and clustering of a run, always beside simpler baselines",
    "ablate": "train with one thing varied at a time, and tabulate what each part of the recipe is worth",
    "embed": "write one vector a video",
    "search": "find the videos nearest to a video",
    "app": "open a page to drop a video on and browse what is similar",
    "report": "write one HTML page with the results, curves, a map and neighbours",
    "precompile": "compile the GPU kernels ahead, on a machine that need not have a GPU",
    "doctor": "say what is installed, what serves each op and why, and what to install",
}
"""Every verb and what it does, in the order of the stages."""

_USER_ERROR, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141
_DISK_ERRORS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status.

    0: done. 1: done, and what was looked at is not in order (as the verb's help says). 2: the input, an
    option or the machine (an extra, the disk, a permission) is not as needed; one line on stderr says what.
    130: interrupted. With `SCALEFAST_TRACEBACK=1` errors keep their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(_usage(), file=sys.stderr)
        return _USER_ERROR
    if argv is None and words[0] == "pretrain":
        restart_without_small_block_caches()
    if os.environ.get("SCALEFAST_TRACEBACK") == "1":
        return _dispatch(words)
    return _readable(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    first, rest = words[0], words[1:]
    if first in ("-h", "--help", "help"):
        if rest and rest[0] in VERBS:
            return _run_verb(rest[0], ["--help"])
        print(_usage())
        return 0
    if first in ("-V", "--version"):
        print(f"scalefast {__version__}")
        return 0
    if first not in VERBS:
        raise ScalefastError(_unknown(first))
    return _run_verb(first, rest)


def _run_verb(verb: str, words: list[str]) -> int:
    """Parses the verb's options into its `Args` and runs it."""
    module = importlib.import_module(f"scalefast.cli.{verb}")
    args = _parse(module.Args, verb, words)
    return int(module.run(args))


def _parse(options: type[Any], verb: str, words: list[str]) -> Any:
    import tyro

    from scalefast.cli._choices import registry

    if not {"-h", "--help"}.isdisjoint(words):
        # Before the usage and by ourselves: the parser would make one line of each paragraph.
        print(_filled(inspect.cleandoc(options.__doc__ or "")), end="\n\n")
    # Nested configurations show as plain options (`--epochs`, not `--config.epochs`), a flag has one form.
    style = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    with registry:
        return tyro.cli(options, prog=f"scalefast {verb}", description="", args=words, config=style)


def _filled(text: str) -> str:
    """The paragraphs of a text, broken to fit the terminal."""
    width = min(shutil.get_terminal_size().columns, 100)
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(textwrap.fill(part, width, break_on_hyphens=False) for part in paragraphs)


def _readable(action: Callable[[], int]) -> int:
    """Runs an action; errors that a user can act on become one message and an exit status."""
    try:
        status = action()
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # the option parser: help was printed (0), or an option was wrong (2)
        return stop.code if isinstance(stop.code, int) else _USER_ERROR
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`scalefast ... | head`): no error, but Python would complain at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except ScalefastError as error:
        return _fail(str(error), _USER_ERROR)
    except OSError as error:
        message = _disk_message(error)
        if message is None:
            raise
        return _fail(message, _USER_ERROR)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def _disk_message(error: OSError) -> str | None:
    """What a full disk, a permission or a path that is not there means, or None for any other failure."""
    if error.errno in _DISK_ERRORS:
        what = _DISK_ERRORS[error.errno]
    elif error.errno == errno.EROFS:
        what = "the file system is read-only"
    elif isinstance(error, PermissionError):
        what = "permission denied"
    elif isinstance(error, FileNotFoundError):
        what = "no such file or folder"
    elif isinstance(error, FileExistsError):
        what = "the path exists already"
    elif isinstance(error, NotADirectoryError | IsADirectoryError):
        what = (error.strerror or "a file where a folder is expected, or the reverse").lower()
    else:
        return None
    return f"{what}: {error.filename}" if error.filename else what


def _unknown(verb: str) -> str:
    if verb.startswith("-"):
        return (
            f"the option {verb!r} stands before the verb; use: scalefast VERB [options], or scalefast --help"
        )
    near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"the verbs are {', '.join(VERBS)}"
    return f"there is no verb {verb!r}; {hint}"


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: scalefast VERB [options]\n\n"
        "Videos in, video-level representations out: decode once, keep the features, train SCALE on them.\n\n"
        f"verbs, in the order of the stages:\n{verbs}\n\n"
        "scalefast VERB --help explains a verb and its options; scalefast --version prints the version."
    )
