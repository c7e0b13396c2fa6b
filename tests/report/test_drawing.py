"""The same drawing in the page, as an SVG file and as a PNG."""

from __future__ import annotations

import importlib
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalefast.errors import InputError, MissingExtraError
from scalefast.report.drawing import Box, Dot, Drawing, Line, Words
from scalefast.report.figures import write_figures

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def drawing() -> Drawing:
    marks = [
        Box(x=10, y=20, width=30, height=10, color="#ff0000", title="<box>"),
        Dot(x=80, y=30, radius=6, color="#0000ff", title="dot & co"),
        Line(points=[(0, 90), (100, 90)], color="#00ff00"),
        Words(x=50, y=60, text="a $x$ <y>", anchor="middle", turn=-45),
    ]
    return Drawing(width=100, height=100, title="a <title>", marks=marks, legend={"red & so": "#ff0000"})


def pixels(content: bytes) -> np.ndarray:
    import matplotlib.image

    return (matplotlib.image.imread(io.BytesIO(content))[..., :3] * 255).round().astype(int)


def test_png_has_the_marks_where_they_are(drawing: Drawing) -> None:
    image = pixels(drawing.png(dots_per_unit=4))
    assert image.shape[1] == 400 and image.shape[0] > 400, "the legend lies below"
    for (x, y), color in {
        (25, 25): (255, 0, 0),
        (80, 30): (0, 0, 255),
        (50, 90): (0, 255, 0),
        (60, 5): (255, 255, 255),
        (17, 111): (255, 0, 0),
    }.items():
        assert image[4 * y, 4 * x].tolist() == list(color), (x, y)
    assert image[4 * 45 : 4 * 60, 4 * 40 : 4 * 60].min() < 150, "the words"


def test_svg_file_is_whole_and_says_the_same(drawing: Drawing) -> None:
    root = ElementTree.fromstring(drawing.svg_file())
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title").text == "a <title>"
    boxes = [box for box in root.iter(f"{SVG}rect") if box.get("class") == "cell"]
    assert (boxes[0].get("x"), boxes[0].get("y")) == ("10.0", "20.0")
    assert [text.text for text in root.iter(f"{SVG}text")] == ["a $x$ <y>", "red & so"]
    assert float(root.get("height")) > 100
    assert "http" not in drawing.svg_file().decode().replace("http://www.w3.org/2000/svg", "")


def test_same_drawing_same_files(drawing: Drawing) -> None:
    assert drawing.png() == drawing.png()
    assert drawing.svg_file() == drawing.svg_file()


def test_long_legends_go_on_in_the_next_row() -> None:
    names = {f"class number {index}": "#123456" for index in range(9)}
    drawing = Drawing(width=300, height=50, title="", marks=[], legend=names)
    root = ElementTree.fromstring(drawing.svg_file())
    places = [(float(text.get("x")), float(text.get("y"))) for text in root.iter(f"{SVG}text")]
    assert len(set(places)) == 9 and len({y for _, y in places}) > 2
    assert all(y < float(root.get("height")) for _, y in places)


def test_figures_are_written_whole_or_refused(drawing: Drawing, tmp_path: Path) -> None:
    written = write_figures(tmp_path / "new" / "figures", {"one": drawing})
    assert [path.name for path in written] == ["one.svg", "one.png"]
    assert sorted(path.name for path in written[0].parent.iterdir()) == ["one.png", "one.svg"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file: figures cannot be written here"):
        write_figures(tmp_path / "file", {"one": drawing})


def test_without_matplotlib_the_extra_is_named(
    drawing: Drawing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def absent(name: str, *rest: Any) -> Any:
        if name == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *rest)

    monkeypatch.setattr("scalefast.errors.importlib.import_module", absent)
    with pytest.raises(MissingExtraError, match=r"figures as PNG; .*scalefast\[report\]"):
        write_figures(tmp_path / "figures", {"one": drawing})
    assert not (tmp_path / "figures").exists()
