"""The page in a real browser: nothing asked for, nothing complained of, videos that play, tips that open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scalefast.evaluation import evaluate
from scalefast.report import report


@pytest.fixture(scope="module")
def place(case: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with its results beside it."""
    folder = tmp_path_factory.mktemp("browser")
    evaluate(case.run, train=case.train, test=case.test, out=folder / "results.json", device="cpu")
    report(
        case.run,
        train=case.train,
        test=case.test,
        out=folder / "report.html",
        results=folder / "results.json",
        videos=case.videos,
        device="cpu",
    )
    return folder


@pytest.fixture
def page(chromium: Any, place: Path) -> Iterator[Any]:
    shown = chromium.open((place / "report.html").as_uri())
    yield shown
    shown.close()


def test_it_asks_for_nothing_and_complains_of_nothing(page: Any) -> None:
    assert page.run("document.title").startswith("SCALE against mean pooling")
    assert page.complaints() == []


def test_its_table_shows_the_results(page: Any, place: Path) -> None:
    shown = page.run(
        "[...document.querySelectorAll('table')[0].querySelectorAll('tbody tr')].map("
        "row => [...row.cells].map(cell => cell.innerText.split('\\n')[0]))"
    )
    results = json.loads((place / "results.json").read_text())
    assert [row[0] for row in shown] == ["k-NN", "linear"]
    for row, values in zip(shown, results.values(), strict=True):
        assert row[1 : 1 + len(values)] == [f"{100 * value:.1f}" for value in values.values()]


def test_every_picture_is_decoded_and_nothing_is_wider_than_the_window(page: Any) -> None:
    assert page.run("document.images.length") > 30
    assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    for width in (1200, 420):
        page.resize(width, 900)
        assert page.run("document.documentElement.scrollWidth") <= width


def test_neighbours_play(page: Any) -> None:
    film = "document.querySelector('.film img')"
    seen = {
        page.run(f"({film}.getAnimations()[0].currentTime = {time}, getComputedStyle({film}).transform)")
        for time in (50, 650, 1850)
    }
    assert len(seen) == 3
    assert page.run(f"{film}.getAnimations()[0].playState") == "running"
    frame = page.run(f"{film}.parentElement.getBoundingClientRect().width")
    assert page.run(f"{film}.offsetWidth") == pytest.approx(12 * frame, abs=1), "one frame is seen at a time"
    assert page.run(f"{film}.naturalWidth / {film}.naturalHeight") == 12


def test_pointer_on_a_point_of_the_map_shows_its_video(page: Any) -> None:
    visible = "[...document.querySelectorAll('.tip')].filter(tip => getComputedStyle(tip).display !== 'none')"
    assert page.run(f"{visible}.length") == 0
    with_picture = "[...document.querySelectorAll('.spot')].findIndex(spot => spot.querySelector('img'))"
    page.run(f"document.querySelectorAll('.spot')[{with_picture}].id = 'mine'")
    page.hover("#mine")
    page.wait(f"{visible}.length === 1")
    text = page.run(f"{visible}[0].innerText")
    assert "test/" in text and any(name in text for name in ("dive", "jump & run", "<b>swim</b>"))
    box = page.run(
        f"(() => {{ const a = {visible}[0].getBoundingClientRect(); return [a.left, a.right, a.width]; }})()"
    )
    assert box[0] >= 0 and box[1] <= 1200 and box[2] > 100
    assert page.run(f"{visible}[0].querySelector('img').getBoundingClientRect().width") > 80


def test_confusion_matrix_counts_every_video(page: Any, case: Any) -> None:
    words = page.run("[...document.querySelectorAll('.matrix rect title')].map(title => title.textContent)")
    assert sum(int(text.rpartition(": ")[2].split()[0]) for text in words) == len(case.test)


def test_words_of_drawings_have_their_size_and_stay_on_the_sheet(page: Any) -> None:
    assert page.run("getComputedStyle(document.querySelector('.matrix .tick')).fontSize") == "11.5px"
    outside = (
        "[...document.querySelectorAll('.sheet svg')].flatMap(svg => { const s = svg.getBoundingClientRect();"
        "return [...svg.querySelectorAll('text')].filter(text => { const t = text.getBoundingClientRect();"
        "return t.left < s.left - 1 || t.right > s.right + 1 || t.top < s.top - 1 || t.bottom > s.bottom + 1; }) })"
    )
    assert page.run(f"{outside}.map(text => text.textContent)") == []


def test_printed_it_stands_still(page: Any) -> None:
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("document.querySelector('.film img').getAnimations().length") == 0
