"""The wheel holds everything, from the checkout and the source distribution, with and without a compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

OFFLINE = ("--no-build-isolation", "--no-deps")
NO_LIBRARY = {"SCALEFAST_NATIVE": "0"}
"""As on a machine without a compiler: a wheel for any platform."""


def build_wheel(pip, source: Path, out: Path, **environment: str) -> Path:
    pip("wheel", *OFFLINE, "--wheel-dir", out, source, **environment)
    (wheel,) = out.glob("scalefast-*.whl")
    return wheel


def expected_files(tree: Path) -> set[str]:
    """Every file of the library and of the ops, under the name by which it is imported."""
    ops = {
        f"scalefast/kernels/ops/{path.relative_to(tree / 'kernels').as_posix()}"
        for path in files(tree / "kernels")
    }
    rest = {path.relative_to(tree).as_posix() for path in files(tree / "scalefast")}
    return {name for name in ops if not name.endswith((".c", ".h"))} | rest


def files(folder: Path) -> list[Path]:
    linked = folder / "kernels" / "ops"
    return [p for p in folder.rglob("*") if p.is_file() and linked not in p.parents and p != linked]


def content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_once(source_tree, tmp_path, pip):
    wheel = build_wheel(pip, source_tree, tmp_path / "dist", **NO_LIBRARY)
    assert wheel.name.endswith("-py3-none-any.whl")
    held = content(wheel)
    assert held == expected_files(source_tree)
    assert {"scalefast/py.typed", "scalefast/kernels/ops/set_attention/reference.py"} <= held


def test_the_metadata_names_the_extras_and_the_entry_point(source_tree, tmp_path, pip):
    wheel = build_wheel(pip, source_tree, tmp_path / "dist", **NO_LIBRARY)
    with zipfile.ZipFile(wheel) as archive:
        info = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")).rpartition(
            "/"
        )[0]
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    stated = tomllib.loads((source_tree / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"video", "backbones", "report"} < set(metadata.get_all("Provides-Extra")) == set(stated)
    always = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    names = sorted(line.split(">")[0].split("<")[0].strip() for line in always)
    assert names == ["huggingface_hub", "numpy", "safetensors", "torch", "tqdm", "tyro"]
    assert "scalefast = scalefast.cli:main" in entry_points


def test_a_source_distribution_gives_the_same_wheel(source_tree, tmp_path, pip):
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "sdist"], cwd=source_tree, check=True, capture_output=True
    )
    (archive,) = (tmp_path / "sdist").glob("scalefast-*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    needed = {"setup.py", "CMakeLists.txt", "LICENSE", "kernels/set_attention/reference.py"}
    assert needed | {f"kernels/native/{path.name}" for path in native_sources(source_tree)} <= names
    assert not any(name.startswith("scalefast/kernels/ops") for name in names), "the ops are in it twice"
    assert content(build_wheel(pip, archive, tmp_path / "dist", **NO_LIBRARY)) == expected_files(source_tree)


def test_an_editable_install_shows_scalefast_and_nothing_else(source_tree, tmp_path, pip):
    """With the checkout itself on the path, its folder `kernels` would answer for another package."""
    target = tmp_path / "site"
    pip("install", *OFFLINE, "--target", target, "--editable", source_tree, **NO_LIBRARY)
    # Without `site`, which would bring in the editable install that the tests themselves may run from.
    code = (
        f"import site, sys; site.addsitedir({str(target)!r})\n"
        f"sys.path.append({sysconfig.get_path('purelib')!r})\n"
        "import importlib.util, scalefast, scalefast.kernels.ops.philox as philox\n"
        "print(scalefast.__file__, philox.__file__, importlib.util.find_spec('kernels'), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=target, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home, ops, kernels = done.stdout.splitlines()
    assert Path(home) == source_tree / "scalefast" / "__init__.py"
    assert Path(ops).resolve() == source_tree / "kernels" / "philox" / "__init__.py"
    assert kernels == "None"


def native_sources(tree: Path) -> list[Path]:
    found = [path for path in (tree / "kernels" / "native").iterdir() if path.suffix in (".c", ".h")]
    assert found
    return found


@pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("cc") is None, reason="needs cmake and a C compiler"
)
def test_native_sources_become_a_library_in_a_wheel_for_any_python(source_tree, tmp_path, pip):
    wheel = build_wheel(pip, source_tree, tmp_path / "dist")
    assert "-py3-none-" in wheel.name and "-any" not in wheel.name
    name = "scalefast/kernels/libscalefast_native.so"
    assert content(wheel) == expected_files(source_tree) | {name}
    with zipfile.ZipFile(wheel) as archive:
        library = ctypes.CDLL(archive.extract(name, tmp_path))
    assert library.scalefast_native_version() >= 1


def test_without_a_compiler_it_installs_and_says_what_it_lacks(source_tree, tmp_path, pip):
    (tmp_path / "empty").mkdir()
    said = pip(
        "wheel",
        *OFFLINE,
        "--verbose",
        "--wheel-dir",
        tmp_path / "dist",
        source_tree,
        PATH=str(tmp_path / "empty"),
    )
    assert "no native library in this build: cmake and a C compiler not found" in said
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_asking_for_the_library_without_a_compiler_is_an_error(source_tree, tmp_path, pip):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        AssertionError, match="SCALEFAST_NATIVE=1 asks for the native library, but cmake and a C"
    ):
        pip(
            *("wheel", *OFFLINE, "--wheel-dir", tmp_path / "dist", source_tree),
            PATH=str(tmp_path / "empty"),
            SCALEFAST_NATIVE="1",
        )
    assert not list(tmp_path.glob("dist/*"))


@pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("cc") is None, reason="needs cmake and a C compiler"
)
def test_native_sources_that_do_not_compile_leave_the_library_out(source_tree, tmp_path, pip):
    (source_tree / "kernels" / "native" / "broken.c").write_text("this is not C\n")
    said = pip("wheel", *OFFLINE, "--verbose", "--wheel-dir", tmp_path / "dist", source_tree)
    assert "the native library was not built" in said
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert not any(name.endswith(".so") for name in content(wheel))


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_cmake_configures(root, tmp_path):
    done = subprocess.run(["cmake", "-S", root, "-B", tmp_path / "build"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
