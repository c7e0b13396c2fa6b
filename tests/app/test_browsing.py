"""What the page answers, without the page."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from scalefast.app import Browser, Card
from scalefast.app.browsing import parse_seconds
from scalefast.app.cards import card_html
from scalefast.cli import main
from scalefast.errors import InputError
from scalefast.report.thumbnails import film_strip
from scalefast.search import Moment, Searcher


def test_shelf_shows_videos_of_the_store(browser: Browser, films: Any) -> None:
    shelf = browser.shelf()
    assert [card.id for card in shelf.cards] == list(films.store.ids), "all six, each once"
    assert shelf.query is None and shelf.note == ""
    assert [card.label for card in shelf.cards] == ["left"] * 3 + ["right"] * 3
    assert shelf.cards[4].picture == film_strip(films.folder / shelf.cards[4].id)


def test_answer_is_that_of_the_search_with_its_moments(browser: Browser, films: Any) -> None:
    name = films.store.ids[2]
    answer = browser.ask(name, k=4)
    found = browser.searcher.find(browser.searcher.query(name), k=4)
    assert [(card.id, card.similarity, card.label) for card in answer.cards] == [
        (item.id, item.similarity, item.label) for item in found
    ]
    for card, item in zip(answer.cards, found, strict=True):
        assert card.moment == item.moments[0]
        between = (card.moment.start, card.moment.end)
        assert card.picture == film_strip(films.folder / item.id, between=between)
    assert answer.title == f"Similar to {name}"
    assert answer.query is not None and answer.query.id == name
    assert "6 videos and the moments of 4, exact search: " in answer.note


def test_dropped_file_and_its_seconds(browser: Browser, films: Any, tmp_path: Path) -> None:
    copy = tmp_path / "dropped.mp4"
    copy.write_bytes((films.folder / films.store.ids[1]).read_bytes())
    answer = browser.ask_file(copy, k=2)
    assert answer.cards[0].id == films.store.ids[1]
    assert answer.cards[0].similarity == pytest.approx(1, abs=1e-4)
    assert answer.query is not None and (answer.query.id, answer.query.name) == ("", "dropped.mp4")
    part = browser.ask_file(copy, between=(0.4, 1.2), k=2)
    assert part.title == "Similar to dropped.mp4, 0.4 to 1.2 s"
    assert part.query is not None and part.query.picture == film_strip(copy, between=(0.4, 1.2))


def test_a_typed_path_is_no_way_to_the_files_of_the_machine(browser: Browser, films: Any) -> None:
    with pytest.raises(InputError, match="no video of the store has the id"):
        browser.ask(str(films.folder / films.store.ids[0]))


def test_pictures_that_are_missing_are_told(films: Any, tmp_path: Path) -> None:
    searcher = Searcher(films.model, films.store, device="cpu")
    assert Browser(searcher).shelf().note == "No pictures: say where the videos are (--videos)."
    for name in films.store.ids[:4]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((films.folder / name).read_bytes() if name[-5] != "0" else b"damaged")
    shelf = Browser(searcher, videos=tmp_path).shelf()
    assert shelf.note == "3 of these videos were not found or cannot be decoded."
    assert [card.picture is None for card in shelf.cards] == [True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("  ", None), ("2-5.5", (2, 5.5)), (" 0.5 to 3 s", (0.5, 3)), ("1.-2", (1, 2))],
)
def test_seconds(text: str, expected: tuple[float, float] | None) -> None:
    assert parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["5", "a-b", "-1-2", "1-2-3", "2s", "1e3-2e3"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected seconds as 2-5\.5, got"):
        parse_seconds(text)


def test_card_escapes_names_and_says_when() -> None:
    moment = Moment(start=1.0, end=2.5, query_start=0.25, query_end=1.5, similarity=0.9)
    card = Card(
        id="<a>.mp4", name="<a>.mp4", label="<b>x</b>", similarity=0.876, moment=moment, picture="data:,"
    )
    html = card_html(card)
    assert "&lt;b&gt;x&lt;/b&gt;" in html and "<b>" not in html and "<a>" not in html
    assert "1.0-2.5 s, like 0.2-1.5 s" in html and "0.876" in html and "width:87.6%" in html
    bare = Card(id="a", name="a", label=None, similarity=None, moment=None, picture=None)
    assert "img" not in card_html(bare) and "bar" not in card_html(bare)


def test_without_gradio_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module

    def absent(name: str, *rest: Any) -> Any:
        if name == "gradio":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return real(name, *rest)

    monkeypatch.setattr("scalefast.errors.importlib.import_module", absent)
    assert main(["app", "run", "store"]) == 2
    assert "install it with: pip install 'scalefast[app]'" in capsys.readouterr().err
