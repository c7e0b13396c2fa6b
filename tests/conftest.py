"""Fixtures for all tests, and what the closing lines of a run say."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NO_SHARED_DATA = "../shared/data is absent: the tests on real videos and lists are left out"

# A shell starts what it puts in the background with interrupts ignored, and whatever that starts inherits it: programs
# that the tests interrupt would not hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The GPU machine's Python has no hypothesis, and the tests there do not use it.
if importlib.util.find_spec("hypothesis") is not None:
    import hypothesis

    # The same examples in every run, and no time limit for one example: the machine may be busy.
    hypothesis.settings.register_profile("scalefast", derandomize=True, deadline=None, database=None)
    hypothesis.settings.load_profile("scalefast")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real videos and annotation lists beside the checkout; tests that need it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(NO_SHARED_DATA)
    return SHARED_DATA


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser (tests/chromium.py); tests that look at pages skip where none is on PATH."""
    place = Path(__file__).with_name("chromium.py")
    spec = importlib.util.spec_from_file_location("chromium", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = module.find()
    if program is None:
        pytest.skip("no Chromium on PATH (apt-get install chromium): pages are not looked at")
    browser = module.Chromium(program)
    yield browser
    browser.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts the tests left out for want of the shared data: many skips with one cause hide in a list."""
    skipped = terminalreporter.stats.get("skipped", [])
    absent = sum(NO_SHARED_DATA in str(report.longrepr) for report in skipped)
    if absent:
        terminalreporter.write_sep("-", f"{absent} tests skipped: {NO_SHARED_DATA}", yellow=True)
