"""`scalefast doctor`: what is installed, what serves each op and why, and what to install."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Say what this machine can do and what to install for more.

    Shows the devices, the packages with the versions that are known to work, which implementation serves each
    op and why, which verbs are ready, and what to do about the rest. Nothing is changed. The exit status is 0
    if what is always needed is in order, else 1.
    """

    json: bool = False
    """Print the findings as JSON, for programs."""


def run(args: Args) -> int:
    """Prints the findings; 0 if what is always needed is in order, else 1."""
    from scalefast.doctor import examine, render

    findings = examine()
    print(json.dumps(findings.to_dict(), indent=2) if args.json else render(findings))
    return 0 if findings.healthy else 1
