"""The page in a real browser: a dropped video, an id, an error, and going on from an answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scalefast.app import Browser, serve
from scalefast.errors import InputError

gradio = pytest.importorskip("gradio", reason="the extra app is not installed")

CARDS = "[...document.querySelectorAll('.found .card')]"
IDS = f"{CARDS}.map(card => card.querySelector('.id').innerText)"


@pytest.fixture(scope="module")
def address(browser: Browser) -> Iterator[str]:
    yield serve(browser, title="films", port=0, block=False)
    gradio.close_all()


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    shown = chromium.open(address)
    shown.wait(f"{CARDS}.length === 6")
    yield shown
    shown.close()


def search_for(page: Any, **fields: str) -> None:
    """Fill in the form as a person does, and press the button."""
    for name, text in fields.items():
        page.run(f"document.querySelector('#{name} textarea, #{name} input').focus()")
        page.call("Input.insertText", text=text)
    page.run("document.querySelector('#go').click()")


def test_page_shows_the_shelf_and_asks_no_other_machine(page: Any, films: Any, address: str) -> None:
    assert page.run("document.title") == "films"
    assert page.run(IDS) == list(films.store.ids)
    assert page.run("[...document.querySelectorAll('.film img')].every(image => image.naturalWidth > 0)")
    asked = [text for text in page.complaints() if text.startswith("asked for ")]
    assert asked and all(text.startswith(f"asked for {address}") for text in asked)


def test_dropped_video_finds_itself_and_what_is_similar(
    page: Any, browser: Browser, films: Any, tmp_path: Path
) -> None:
    dropped = tmp_path / "holiday.mp4"
    dropped.write_bytes((films.folder / films.store.ids[3]).read_bytes())
    page.give("#file input[type=file]", dropped)
    page.wait("document.querySelector('#query .card')")
    expected = browser.ask_file(dropped)
    assert page.run(IDS) == [card.id for card in expected.cards]
    assert page.run(IDS)[0] == films.store.ids[3]
    assert page.run("document.querySelector('#query .id').innerText") == "holiday.mp4"
    seconds = page.run("document.querySelector('.found .when').innerText")
    moment = expected.cards[0].moment
    assert moment is not None and seconds.startswith(f"{moment.start:.1f}-{moment.end:.1f} s, like ")


def test_id_then_more_like_one_of_the_answers(page: Any, browser: Browser, films: Any) -> None:
    search_for(page, name=films.store.ids[0])
    page.wait("document.querySelector('#query .card')")
    assert page.run(IDS) == [card.id for card in browser.ask(films.store.ids[0]).cards]
    second = page.run(IDS)[1]
    page.run(
        "[...document.querySelectorAll('button')].filter(b => b.innerText === 'More like this')[1].click()"
    )
    page.wait(f"document.querySelector('#query .id').innerText === '{second}'")
    assert second not in page.run(IDS) and len(page.run(IDS)) == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "nobody.mp4"}, "no video of the store has the id"),
        ({"name": "left/0.mp4", "part": "7-9"}, "no clip of 'left/0.mp4' lies between 7 and 9 s"),
        ({"part": "soon"}, "expected seconds as 2-5.5, got 'soon'"),
    ],
)
def test_errors_are_shown_and_the_page_goes_on(page: Any, fields: dict[str, str], message: str) -> None:
    search_for(page, **fields)
    page.wait(f"document.body.innerText.includes({message!r})")
    assert page.run(f"{CARDS}.length") == 6


def test_verb_serves_until_it_is_interrupted(films: Any, tmp_path: Path) -> None:
    films.model.save_pretrained(tmp_path / "model")
    words = [
        "app",
        str(tmp_path / "model"),
        str(films.store.path),
        "--videos",
        str(films.folder),
        "--port",
        "0",
    ]
    command = [sys.executable, "-m", "scalefast", *words]
    # Without a proxy between this machine and itself.
    environment = {**os.environ, "NO_PROXY": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            served = re.match(r"scalefast: store: (http://127\.0\.0\.1:\d+/)", said)
            assert served is not None, said
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            assert b"scalefast: store" in opener.open(served[1], timeout=30).read()
            server.send_signal(signal.SIGINT)
            assert server.wait(30) in (0, 130)
        finally:
            server.kill()


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_that_is_none(browser: Browser, port: int) -> None:
    with pytest.raises(InputError, match=f"a port must be a number from 0 to 65535, got port = {port}"):
        serve(browser, port=port, block=False)


def test_port_that_is_taken(browser: Browser) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*--port"):
            serve(browser, port=port, block=False)
