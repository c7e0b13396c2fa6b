"""Charts: well-formed, true to their data, safe with any name."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalefast.report.charts import (
    BOTTOM,
    GREY,
    HEIGHT,
    LEFT,
    PALETTE,
    RIGHT,
    TOP,
    WIDTH,
    Bar,
    Series,
    drawing_order,
    interval_chart,
    line_chart,
    scatter_chart,
    ticks,
)
from scalefast.report.drawing import Box, Dot, Drawing, Line, Words
from scalefast.report.figures import class_colors
from scalefast.report.matrix import matrix_chart


def parse(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{drawing.svg()}</div>")


def line_of(drawn: ElementTree.Element) -> list[ElementTree.Element]:
    return drawn.findall(".//polyline[@class='line']")


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_are_round_even_and_inside(low: float, span: float) -> None:
    high = low + span
    marks = ticks(low, high)
    step = span if len(marks) < 2 else marks[1] - marks[0]
    assert 1 <= len(marks) <= 11
    assert all(low - 1e-6 * span <= mark <= high + 1e-6 * span for mark in marks)
    for first, second in itertools.pairwise(marks):
        assert second - first == pytest.approx(step, rel=1e-6)
    if len(marks) > 1:
        digits = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(digits - round_one) for round_one in (1, 2, 5)) < 1e-3


def test_ticks_of_a_range_of_nothing() -> None:
    assert ticks(3.0, 3.0) == [3.0]


def test_line_goes_through_its_points() -> None:
    line = Series(name="a", x=[0, 10, 20], y=[0.0, 0.5, 1.0], color="#123456")
    drawn = parse(line_chart([line], title="t", x_label="step", y_range=(0.0, 1.0)))
    points = line_of(drawn)[0].get("points").split()
    places = [tuple(map(float, point.split(","))) for point in points]
    middle = ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2)
    assert places[0] == pytest.approx((LEFT, HEIGHT - BOTTOM))
    assert places[1] == pytest.approx(middle)
    assert places[2] == pytest.approx((WIDTH - RIGHT, TOP))
    assert [text.text for text in drawn.iter("text")][-1] == "step"


def test_gaps_interrupt_a_line_and_single_points_are_dots() -> None:
    line = Series(name="a", x=[0, 1, 2, 3, 4], y=[1.0, 2.0, math.nan, 3.0, math.inf], color="#123456")
    drawn = parse(line_chart([line], title="t", x_label="x"))
    assert len(line_of(drawn)) == 1
    assert len(drawn.findall(".//circle")) == 1


@pytest.mark.parametrize("y", [[2.0], [0.0, 0.0], [5.0, 5.0, 5.0], [-1e-9, 1e9]])
def test_flat_short_and_wide_lines_stay_on_the_paper(y: list[float]) -> None:
    drawn = parse(
        line_chart([Series(name="a", x=list(range(len(y))), y=y, color="#1")], title="", x_label="")
    )
    for element in line_of(drawn):
        for point in element.get("points").split():
            across, down = map(float, point.split(","))
            assert LEFT <= across <= WIDTH - RIGHT
            assert TOP <= down <= HEIGHT - BOTTOM


def test_scatter_keeps_distances_and_names_points() -> None:
    names = ["<script>alert(1)</script>", 'a "b" & c', "d"]
    drawn = parse(
        scatter_chart([(0, 0), (3, 0), (0, 4)], colors=["#1", "#2", "#3"], names=names, title="x < y")
    )
    dots = drawn.findall(".//circle")
    assert [dot.find("title").text for dot in dots] == names
    at = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in dots]
    assert math.dist(at[0], at[1]) / math.dist(at[0], at[2]) == pytest.approx(3 / 4, abs=1e-3)
    assert at[2][1] < at[0][1], "up is up"
    assert drawn.find("svg").get("aria-label") == "x < y"


def test_points_at_one_place_are_drawn() -> None:
    drawn = parse(scatter_chart([(1, 1), (1, 1)], colors=["#1", "#2"], names=["a", "b"], title=""))
    assert [dot.get("cx") for dot in drawn.iter("circle")] == ["220.0", "220.0"]


def test_every_class_has_a_colour_of_its_own() -> None:
    labels = [5, 5, 2, 9]
    colors, key = class_colors(labels, {2: "a", 5: "b", 9: "c"})
    assert len(set(colors.values())) == 3
    assert key == {"a": colors[2], "b": colors[5], "c": colors[9]}


def test_beyond_the_palette_the_rarest_classes_are_grey() -> None:
    labels = [label for label in range(25) for _ in range(1 + label)]
    colors, key = class_colors(labels, {label: f"class {label}" for label in range(25)})
    assert [label for label, color in colors.items() if color == GREY] == [0, 1, 2, 3, 4]
    assert len({colors[label] for label in range(5, 25)}) == len(PALETTE) == 20
    assert key["5 other classes"] == GREY


def test_grey_points_lie_below_the_others() -> None:
    colors = ["#1", GREY, "#2", GREY]
    assert drawing_order(colors) == [1, 3, 0, 2]
    drawing = scatter_chart([(0, 0), (1, 1), (2, 0), (3, 1)], colors=colors, names=list("abcd"), title="")
    assert [mark.title for mark in drawing.marks] == ["b", "d", "a", "c"]


def test_intervals_are_where_their_numbers_are() -> None:
    bars = [
        Bar(name="SCALE", value=50.0, low=40.0, high=60.0, color="#1", title="a"),
        Bar(name="other", value=40.0, low=math.nan, high=math.nan, color="#2", title="b"),
    ]
    drawing = interval_chart({"k-NN": bars}, title="t", x_label="%")
    dots = {mark.title: mark for mark in drawing.marks if isinstance(mark, Dot)}
    (whisker,) = [mark for mark in drawing.marks if isinstance(mark, Line) and mark.kind == "whisker"]
    grid = {
        float(words.text): words.x
        for words in drawing.marks
        if isinstance(words, Words) and words.text.replace(".", "").isdigit()
    }
    assert dots["b"].x == pytest.approx(whisker.points[0][0])
    assert dots["a"].x == pytest.approx((whisker.points[0][0] + whisker.points[1][0]) / 2)
    assert grid[50] == pytest.approx(dots["a"].x) and grid[40] == pytest.approx(dots["b"].x)
    assert drawing.legend == {"SCALE": "#1", "other": "#2"}
    assert all(0 <= mark.x <= drawing.width for mark in dots.values())


def test_matrix_counts_and_shades() -> None:
    counts = [[3, 1, 0], [0, 0, 4], [0, 0, 0]]
    drawing = matrix_chart(counts, names=["a", "b & c", "never"], title="")
    boxes = [mark for mark in drawing.marks if isinstance(mark, Box)]
    assert [box.title for box in boxes[:3]] == [
        "a: 3 of 4 taken for a",
        "a: 1 of 4 taken for b & c",
        "a: 0 of 4 taken for never",
    ]
    shown = [mark.text for mark in drawing.marks if isinstance(mark, Words) and mark.kind.startswith("count")]
    assert shown == ["3", "1", "4"]
    strength = [int(box.color[3:5], 16) for box in boxes]  # green: the less, the stronger the shade
    assert strength[5] < strength[1] < strength[2] == strength[6]
    assert all(box.x >= 0 and box.x + box.width <= drawing.width for box in boxes)
    assert len(parse(drawing).findall(".//rect")) == 9


@pytest.mark.parametrize("classes", [1, 2, 40])
def test_matrix_of_any_size_fits_its_sheet(classes: int) -> None:
    drawing = matrix_chart([[1] * classes] * classes, names=["n" * 50] * classes, title="")
    for mark in drawing.marks:
        assert 0 <= mark.x <= drawing.width and 0 <= mark.y <= drawing.height
