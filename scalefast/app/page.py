"""The page, by Gradio: it runs on this machine and asks nothing of any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalefast.app.browsing import Answer, Browser, Card, parse_seconds
from scalefast.app.cards import CSS, card_html
from scalefast.errors import InputError, ScalefastError, require

__all__ = ["build_page", "serve"]

COLUMNS = 4
"""Cards in a row."""

MOST = 48
"""Videos of one answer."""


def build_page(browser: Browser, *, title: str = "scalefast") -> Any:
    """A `gradio.Blocks`: drop a file or name a video, see what is similar, go on from any of the answers.

    Args:
        browser: what answers.
        title: of the page.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    gr = _gradio()
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(
            f"# {title}\nDrop a video or an image, or name a video of the store; then go on from any answer."
        )
        shown = gr.State(browser.shelf())
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=250):
                file = gr.File(label="Video or image", file_types=["video", "image"], elem_id="file")
                name = gr.Textbox(label="or the id of a video of the store", elem_id="name")
                part = gr.Textbox(
                    label="these seconds of it only", placeholder="such as 2-5.5", elem_id="part"
                )
                count = gr.Slider(1, MOST, value=12, step=1, label="Videos to find")
                go = gr.Button("Search", variant="primary", elem_id="go")
            with gr.Column(scale=4):
                _answers(gr, browser, shown, count)
        asked = [file, name, part, count]
        gr.on([go.click, name.submit, part.submit], _form(gr, browser), inputs=asked, outputs=shown)
        # What is dropped is searched for at once; the id that was typed before belongs to another question.
        file.upload(lambda: "", outputs=name).then(_form(gr, browser), inputs=asked, outputs=shown)
    return page


def serve(
    browser: Browser,
    *,
    title: str = "scalefast",
    host: str = "127.0.0.1",
    port: int = 7860,
    open_browser: bool = False,
    block: bool = True,
) -> str:
    """Serve the page; returns its address, at once with `block=False`, else when it is interrupted.

    Args:
        browser: what answers.
        title: of the page.
        host: address to listen on; by default nobody but this machine can ask.
        port: to listen on; 0 takes any that is free.
        open_browser: open the page in the machine's browser.
        block: wait until interrupted.

    Raises:
        InputError: the address cannot be listened on, or is none. MissingExtraError: gradio is not installed.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"a port must be a number from 0 to 65535, got {port = }")
    gr = _gradio()
    page = build_page(browser, title=title)
    # The system's fonts: the theme's own would be asked of another machine.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = page.queue().launch(
            server_name=host,
            server_port=port or None,
            inbrowser=open_browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            theme=theme,
            css=CSS,
        )
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}; name another --port") from error
    print(f"{title}: {address} (Ctrl+C ends it)", flush=True)
    if block:
        page.block_thread()
    return str(address)


def _gradio() -> Any:
    return require("gradio", extra="app", needed_for="the page to browse videos")


def _answers(gr: Any, browser: Browser, shown: Any, count: Any) -> None:
    """Query and cards of the answer that is shown, drawn anew with each."""

    @gr.render(inputs=shown)
    def draw(answer: Answer) -> None:
        gr.Markdown(f"### {answer.title}\n{answer.note}", elem_id="answer")
        if answer.query is not None:
            with gr.Row(), gr.Column(scale=0, min_width=180):
                gr.HTML(card_html(answer.query), elem_id="query")
        for begin in range(0, len(answer.cards), COLUMNS):
            row = answer.cards[begin : begin + COLUMNS]
            with gr.Row(equal_height=False):
                for card in row:
                    with gr.Column(scale=1, min_width=130):
                        gr.HTML(card_html(card), elem_classes="found")
                        button = gr.Button("More like this", size="sm")
                        button.click(_go_on(gr, browser, card), inputs=count, outputs=shown)
                for _ in range(COLUMNS - len(row)):
                    gr.Column(scale=1, min_width=130)


def _form(gr: Any, browser: Browser) -> Callable[..., Answer]:
    """What the form asks."""

    def ask(file: str | None, name: str, part: str, count: float) -> Answer:
        return _readable(gr, lambda: answer(file, name.strip(), parse_seconds(part), int(count)))

    def answer(file: str | None, name: str, between: tuple[float, float] | None, k: int) -> Answer:
        if name:
            return browser.ask(name, between=between, k=k)
        return browser.ask_file(Path(file), between=between, k=k) if file else browser.shelf()

    return ask


def _go_on(gr: Any, browser: Browser, card: Card) -> Callable[..., Answer]:
    """What the button under a card asks: the moment that was met there, if there is one."""
    between = None if card.moment is None else (card.moment.start, card.moment.end)
    return lambda count: _readable(gr, lambda: browser.ask(card.id, between=between, k=int(count)))


def _readable(gr: Any, action: Callable[[], Answer]) -> Answer:
    """Errors that a user can act on become a message on the page."""
    try:
        return action()
    except ScalefastError as error:
        raise gr.Error(str(error), print_exception=False) from error
