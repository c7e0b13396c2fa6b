"""Whether the C library is used: what the environment asks for, and what is said where it cannot be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from scalefast import SCALE, kernels
from scalefast.kernels.ops import native


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where no library is."""
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    monkeypatch.delenv("SCALEFAST_NATIVE", raising=False)
    monkeypatch.delenv("SCALEFAST_BACKEND", raising=False)
    return tmp_path / "none.so"


def test_without_it_the_references_serve_and_say_why(missing: Path) -> None:
    served = kernels.backend("cpu")
    for op in native.NATIVE_OPS:
        assert served[op].implementation == "reference"
        assert "no native CPU kernels: they were not built (needs cmake and a C compiler" in served[op].reason
    assert "native" not in served["sample_views"].reason
    assert not native.serves_native(torch.zeros(1))


def test_asking_for_a_missing_one_is_an_error(missing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALEFAST_NATIVE", "1")
    for action in (
        lambda: kernels.backend("cpu"),
        lambda: SCALE(8),
        lambda: native.serves_native(torch.zeros(1)),
    ):
        with pytest.raises(
            ValueError, match="SCALEFAST_NATIVE=1 asks for the native CPU kernels: they were not built"
        ):
            action()


@pytest.mark.parametrize("wish", ["yes", "", "2"])
def test_an_unknown_wish_is_refused(missing: Path, wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALEFAST_NATIVE", wish)
    with pytest.raises(ValueError, match="SCALEFAST_NATIVE must be auto, 0 or 1; got"):
        native.lacking()


def test_a_file_that_is_no_library_is_said(missing: Path) -> None:
    missing.write_bytes(b"not a library")
    native._load.cache_clear()
    assert "does not load" in (native.lacking() or "")


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "int scalefast_native_version(void) { return 99; }",
            "was built from other sources (version 99, not",
        ),
        ("int other(void) { return 1; }", "does not load"),
    ],
)
def test_a_library_of_other_sources_is_refused(missing: Path, source: str, expected: str) -> None:
    code = missing.with_suffix(".c")
    code.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", missing, code], check=True)
    native._load.cache_clear()
    assert expected in (native.lacking() or "")


@pytest.mark.parametrize(("name", "value"), [("SCALEFAST_NATIVE", "0"), ("SCALEFAST_BACKEND", "reference")])
def test_it_can_be_turned_off(missing: Path, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert native.lacking() == f"{name}={value}"
