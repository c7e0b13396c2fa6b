"""The films of the search tests, and what browses them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from scalefast.app import Browser
from scalefast.search import Searcher

_place = Path(__file__).parents[1] / "search" / "conftest.py"
_spec = importlib.util.spec_from_file_location("films_of_search", _place)
assert _spec is not None and _spec.loader is not None
_films = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_films)

one_thread, films, render_film = _films.one_thread, _films.films, _films.render_film


@pytest.fixture(scope="session")
def browser(films: object) -> Browser:
    """Over the six films."""
    folder, store, model = films  # type: ignore[misc]
    return Browser(Searcher(model, store, device="cpu"), videos=folder)
