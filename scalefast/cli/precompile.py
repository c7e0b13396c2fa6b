"""`scalefast precompile`: fill Triton's cache on a machine that need not have a GPU."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scalefast.errors import InputError

__all__ = ["Args", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compile the kernels before they are needed, for an image or a cluster's nodes.

    Every kernel configuration that ships is compiled for a GPU and kept in Triton's cache, so that the first training
    step there compiles nothing. No GPU is needed. What is launched at other widths than the paper's is compiled on
    first use, as always. The cache belongs to one version of Triton: use the environment that will run.
    """

    arch: str = "sm_90"
    """GPU to compile for: sm_80 (A100), sm_90 (H100, H200), sm_100 (B200) or gfx942 (MI300X)."""

    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder of the cache. Without it: Triton's own ($TRITON_CACHE_DIR, else ~/.triton/cache). Set TRITON_CACHE_DIR to
    it where the kernels run."""


def run(args: Args) -> int:
    """Compiles and prints what was done; 0."""
    if args.cache is not None:
        if args.cache.exists() and not args.cache.is_dir():
            raise InputError(f"--cache {args.cache} is a file; it must be a folder or not exist yet")
        os.environ["TRITON_CACHE_DIR"] = str(args.cache.resolve())
    from scalefast.kernels.crosscompile import compile_all

    count, seconds = 0, 0.0
    for row in compile_all([args.arch]):
        count, seconds = count + 1, seconds + row.compiled.seconds
        if sys.stderr.isatty():
            print(f"\r{count} kernels, {seconds:.0f} s: {row.name[:60]:60}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    where = os.environ.get("TRITON_CACHE_DIR") or "Triton's own cache (~/.triton/cache)"
    print(f"{count} kernels for {args.arch} in {where}, compiled in {seconds:.1f} s")
    return 0
