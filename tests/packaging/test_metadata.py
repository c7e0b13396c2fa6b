"""What is said twice agrees: pyproject.toml, the doctor, the errors, the Makefile, the change log."""

from __future__ import annotations

import re
import tomllib

import pytest

from scalefast import __version__, doctor


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())


def requirements(lines):
    """`name>=1,<2; marker` -> {name: ">=1,<2"}."""
    split = [re.match(r"([\w.-]+)(.*)", line.partition(";")[0].strip()) for line in lines]
    return {match[1]: match[2] for match in split}


def test_torch_is_no_build_requirement(project):
    assert [re.split(r"[<>=]", name)[0] for name in project["build-system"]["requires"]] == ["setuptools"]


def test_the_doctor_knows_the_core_dependencies(project):
    assert requirements(project["project"]["dependencies"]) == doctor.CORE


def test_the_doctor_knows_the_extras(project):
    extras = project["project"]["optional-dependencies"]
    assert {name: requirements(extras[name]) for name in doctor.EXTRAS} == doctor.EXTRAS
    assert set(extras) - set(doctor.EXTRAS) == {"all", "test", "dev"}


def test_extras_that_errors_name_exist(project, root):
    """Every `require(..., extra="x")` in the sources names an extra of pyproject.toml."""
    sources = [
        path.read_text() for folder in ("scalefast", "kernels") for path in (root / folder).rglob("*.py")
    ]
    named = {extra for text in sources for extra in re.findall(r'extra="([\w-]+)"', text)}
    assert "video" in named
    assert named <= set(project["project"]["optional-dependencies"])


def test_the_makefile_takes_a_torch_within_the_range(root):
    version = re.search(r"^TORCH_VERSION \?= (\S+)$", (root / "Makefile").read_text(), flags=re.MULTILINE)[1]
    assert doctor.version_fits(version, doctor.CORE["torch"])


def test_every_pip_call_is_constrained(root):
    """An unconstrained call may replace torch by a CUDA build of 3 GB."""
    for name in ("Makefile", ".ci/run", ".ci/install-torch", ".ci/gpu.py"):
        for line in (root / name).read_text().splitlines():
            if re.search(r"-m pip (install|wheel|download)", line):
                assert "--constraint" in line, f"{name}: {line.strip()}"


def test_the_change_log_begins_with_this_version(root):
    headings = re.findall(
        r"^## \[?(\S+?)\]?(?: .*)?$", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE
    )
    assert __version__ in headings[:2]


def test_the_kernels_folder_is_no_package(root):
    assert not (root / "kernels" / "__init__.py").exists()
    assert (root / "scalefast" / "kernels" / "ops").resolve() == root / "kernels"
