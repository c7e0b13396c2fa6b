"""Compile every kernel configuration that ships, for a GPU that need not be there.

    python -m scalefast.kernels.crosscompile --arch sm_90        # a table; fails if a budget is exceeded

`scalefast precompile` is the same for users: it fills Triton's cache while an image is built.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scalefast.errors import InputError, require
from scalefast.kernels.ops.compilation import ARCHITECTURES, Compiled, Shipped, compile_shipped

__all__ = ["KERNEL_FOLDERS", "Row", "compile_all", "main", "shipped_kernels"]

KERNEL_FOLDERS = ("philox", "set_embedding", "set_attention", "sparse_infonce", "view_sampling")
"""Folders of `kernels/` that have Triton kernels."""


@dataclass(frozen=True)
class Row:
    """One kernel on one architecture."""

    folder: str
    arch: str
    name: str
    compiled: Compiled


def shipped_kernels(folders: Iterable[str] = KERNEL_FOLDERS) -> Iterator[tuple[str, Shipped]]:
    """Every configuration that ships, with its folder.

    Raises:
        MissingExtraError: Triton is not installed. InputError: TRITON_INTERPRET=1, or an unknown folder.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise InputError("kernels are not compiled under TRITON_INTERPRET=1: unset it")
    require("triton", extra="gpu", needed_for="compiling the kernels")
    for folder in folders:
        if folder not in KERNEL_FOLDERS:
            raise InputError(f"op must be one of {', '.join(KERNEL_FOLDERS)}; got {folder!r}")
        for shipped in importlib.import_module(f"scalefast.kernels.ops.{folder}.triton").shipped():
            yield folder, shipped


def compile_all(archs: Sequence[str], folders: Iterable[str] = KERNEL_FOLDERS) -> Iterator[Row]:
    """Compile what ships, one row as soon as it is there.

    Raises:
        InputError: an unknown architecture or op. MissingExtraError: Triton is not installed.
    """
    for arch in archs:
        if arch not in ARCHITECTURES:
            raise InputError(f"arch must be one of {', '.join(ARCHITECTURES)}; got {arch!r}")
    for folder, shipped in shipped_kernels(folders):
        for arch in archs:
            yield Row(folder, arch, shipped.name, compile_shipped(shipped, arch=arch))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each kernel and architecture; 1 if a budget is exceeded."""
    parser = argparse.ArgumentParser(description="Compile every kernel configuration that ships.")
    parser.add_argument("--arch", nargs="+", default=["sm_90"], choices=list(ARCHITECTURES))
    parser.add_argument("--op", nargs="+", default=list(KERNEL_FOLDERS), choices=KERNEL_FOLDERS)
    args = parser.parse_args(argv)
    import triton

    print(f"Triton {triton.__version__}")
    print(f"{'arch':7} {'registers':>9} {'spilled':>7} {'shared':>7} {'tensor':>6} {'s':>5}  kernel")
    failed = 0
    for row in compile_all(args.arch, args.op):
        c = row.compiled
        verdict = f"  OVER BUDGET: {'; '.join(c.failures)}" if c.failures else ""
        failed += bool(c.failures)
        print(
            f"{row.arch:7} {c.registers:9} {c.spill_bytes:7} {c.shared:7} {c.tensor_core:6} {c.seconds:5.1f}  "
            f"{row.name}{verdict}",
            flush=True,
        )
    print(f"{failed} over budget" if failed else "all within budget")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
