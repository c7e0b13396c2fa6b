"""Builds the wheel; the metadata is in pyproject.toml.

Two things cannot be said there. The ops live in the top-level folder `kernels/`, which is no package of its
own (the name belongs to another distribution), and are installed as `scalefast.kernels.ops`. And C sources
under `kernels/native/` are built by CMake into one plain shared library,
`scalefast/kernels/libscalefast_native.so`, where a compiler is at hand; otherwise the library installs
without it, says what it lacks, and its ops run on PyTorch alone. `SCALEFAST_NATIVE=1` makes that an error,
`SCALEFAST_NATIVE=0` leaves the native library out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
OPS = "scalefast.kernels.ops"
NATIVE = "scalefast.kernels.libscalefast_native"


def missing_for_native() -> str | None:
    """Why the native library is not built here, or None if it can be."""
    if os.environ.get("SCALEFAST_NATIVE") == "0":
        return "SCALEFAST_NATIVE=0"
    if not any((ROOT / "kernels" / "native").glob("*.c")):
        return "this copy has no native sources"
    lacking = [
        what
        for what, names in {"cmake": ["cmake"], "a C compiler": ["cc", "gcc", "clang"]}.items()
        if not any(map(shutil.which, names))
    ]
    return f"{' and '.join(lacking)} not found" if lacking else None


class BuildNative(build_ext):
    """Configures and builds CMakeLists.txt, and puts the library where setuptools expects an extension."""

    def get_ext_filename(self, fullname: str) -> str:
        """A plain library, loaded with ctypes: its name carries no Python ABI."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Runs CMake; a failure is reported by setuptools and leaves the library out, where it is optional."""
        build = Path(self.build_temp).resolve()
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        steps = [
            ["cmake", "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"],
            ["cmake", "--build", str(build), "--config", "Release", "--parallel"],
            ["cmake", "--install", str(build), "--config", "Release", "--prefix", str(target.parent)],
        ]
        try:
            for step in steps:
                subprocess.run(step, check=True)
        except subprocess.CalledProcessError as error:
            raise CompileError(f"the native library was not built: {error}") from error


class PlainLibraryWheel(bdist_wheel):
    """With the native library the wheel fits one platform, but any Python."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        return "py3", "none", platform


def packages() -> list[str]:
    """All of scalefast, and the folder `kernels/` under the name by which it is imported."""
    ops = find_packages(str(ROOT / "kernels"))
    return [
        *find_packages(str(ROOT), include=["scalefast", "scalefast.*"]),
        *(f"{OPS}.{name}" for name in ops),
    ]


reason = missing_for_native()
required = os.environ.get("SCALEFAST_NATIVE") == "1"
if reason is not None and required:
    sys.exit(f"error: SCALEFAST_NATIVE=1 asks for the native library, but {reason}")
if reason is not None:
    print(f"scalefast: no native library in this build: {reason}", file=sys.stderr)
setup(
    packages=packages(),
    package_dir={OPS: "kernels"},
    include_package_data=True,
    exclude_package_data={"": ["*.c", "*.h"]},
    ext_modules=[] if reason else [Extension(NATIVE, sources=[], optional=not required)],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlainLibraryWheel},
)
