"""Well-formed SVG, with every value where it belongs."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from bunryu.reports.svg import bars, lines, meter, reliability

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ElementTree.Element:
    """The drawing, of which every number must be inside it."""
    drawing = ElementTree.fromstring(text)
    _, _, width, height = map(float, drawing.attrib["viewBox"].split())
    for element in drawing.iter():
        for name in ("x", "cx", "y", "cy", "width", "height"):
            if name in element.attrib and element is not drawing:
                assert 0 <= float(element.attrib[name]) <= (width if name in ("x", "cx", "width") else height)
    return drawing


def all_of(drawing: ElementTree.Element, kind: str, style: str) -> list[ElementTree.Element]:
    return [e for e in drawing.iter(f"{SVG}{kind}") if style in e.attrib.get("class", "").split()]


def words(drawing: ElementTree.Element) -> list[str]:
    return [str(element.text) for element in drawing.iter(f"{SVG}text")]


def dots(drawing: ElementTree.Element, index: int) -> list[tuple[float, float]]:
    found = all_of(drawing, "circle", f"series-{index}")
    return [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in found]


@pytest.mark.parametrize(
    "chart",
    [
        lines("<b>&", {"train": [(1, 2.0)]}, "step"),
        bars("<b>&", [0, 0], [0.5, 0.75, 1.0], "share", 0),
        reliability("<b>&", []),
    ],
)
def test_a_chart_of_next_to_nothing_is_an_image_with_a_title(chart: str) -> None:
    drawing = parsed(chart)
    assert drawing.attrib["role"] == "img"
    assert (drawing[0].tag, drawing[0].text) == (f"{SVG}title", "<b>&")


def test_points_of_a_line_stand_in_proportion() -> None:
    drawing = parsed(lines("t", {"a": [(0, 0.0), (50, 0.25), (100, 1.0)], "b": [(100, 0.5)]}, "step"))
    (left, low), (middle, between), (right, high) = dots(drawing, 0)
    assert middle - left == pytest.approx(right - middle, abs=0.02)
    assert (low - between) / (low - high) == pytest.approx(0.25, abs=0.001)
    assert dots(drawing, 1) == [(right, pytest.approx((low + high) / 2, abs=0.02))]
    # a line for the points and a stroke of the legend; the single point has the stroke only
    assert [len(all_of(drawing, "path", f"series-{index}")) for index in (0, 1)] == [2, 1]


def test_axes_carry_round_numbers_around_the_values() -> None:
    found = words(parsed(lines("t", {"a": [(0, 0.23), (4000, 0.71)]}, "step")))
    assert found == ["t", "0.2", "0.4", "0.6", "0.8", "0", "1,000", "2,000", "3,000", "4,000", "step", "a"]
    shares = words(parsed(lines("t", {"a": [(0, 0.5), (1, 1.0)]}, "step", "%")))
    assert {"40%", "60%", "80%", "100%"} <= set(shares)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-5, 1e9])
def test_values_that_are_all_equal_can_be_drawn(value: float) -> None:
    drawing = parsed(lines("t", {"a": [(7, value), (8, value)]}, "step"))
    (_, first), (_, second) = dots(drawing, 0)
    assert first == second
    assert len(set(words(drawing))) == len(words(drawing))


def test_what_is_not_finite_is_left_out() -> None:
    points = [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)]
    drawing = parsed(lines("t", {"a": points, "b": [(0, math.nan)]}, "step"))
    assert (len(dots(drawing, 0)), len(dots(drawing, 1))) == (2, 0)
    assert "nan" not in ElementTree.tostring(drawing, "unicode")


def test_long_lines_have_no_dots() -> None:
    drawing = parsed(lines("t", {"a": [(step, float(step)) for step in range(200)]}, "step"))
    assert dots(drawing, 0) == []
    _, line = sorted(all_of(drawing, "path", "series-0"), key=lambda path: len(path.attrib["d"]))
    assert len(re.findall("[ML]", line.attrib["d"])) == 200


def test_text_stays_text() -> None:
    drawing = parsed(lines("t", {"<script>alert('1')</script>": [(0, 1.0)]}, '"><x>'))
    assert {"<script>alert('1')</script>", '"><x>'} <= set(words(drawing))
    tags = {element.tag.removeprefix(SVG) for element in drawing.iter()}
    assert tags == {"svg", "title", "path", "circle", "text"}


def test_bars_are_as_high_as_their_counts() -> None:
    drawing = parsed(bars("t", [10, 0, 40, 20], [0.0, 0.25, 0.5, 0.75, 1.0], "share", 1))
    found = all_of(drawing, "rect", "series-1")
    heights = [float(bar.attrib["height"]) for bar in found]
    assert [height / heights[2] for height in heights] == pytest.approx([0.25, 0, 1, 0.5], abs=0.001)
    assert [bar[0].text for bar in found][2] == "50.0% to 75.0%: 40 rows"
    assert len({float(bar.attrib["y"]) + float(bar.attrib["height"]) for bar in found}) == 1


@pytest.mark.parametrize("accuracy", [0.5, 1.0])
def test_a_bin_is_a_bar_of_its_accuracy_and_the_gap_to_its_confidence(accuracy: float) -> None:
    place = {"from": 0.8, "to": 1.0}
    full = {**place, "rows": 1234, "confidence": 0.9, "accuracy": accuracy}
    empty = {**place, "rows": 0, "confidence": None, "accuracy": None}
    without_numbers = {**place, "rows": 3, "confidence": math.nan, "accuracy": 0.5}
    drawing = parsed(reliability("t", [empty, full, without_numbers]))
    # the second of each is the legend's
    bar, gap = all_of(drawing, "rect", "bar")[0], all_of(drawing, "rect", "gap")[0]
    height = float(bar.attrib["height"])
    assert float(gap.attrib["height"]) / height == pytest.approx(abs(0.9 - accuracy) / accuracy, abs=0.001)
    assert [group[0].text for group in drawing.iter(f"{SVG}g")] == [
        f"confidence 80.0% to 100.0%: 1,234 rows, mean confidence 90.0%, accuracy {accuracy:.1%}"
    ]


@pytest.mark.parametrize(("share", "width"), [(0.0, 0), (0.345, 34.5), (1.0, 100)])
def test_a_meter_is_as_wide_as_its_share_and_hidden_from_readers(share: float, width: float) -> None:
    drawing = ElementTree.fromstring(meter(share))
    assert drawing.attrib["aria-hidden"] == "true"
    assert [float(rect.attrib["width"]) for rect in drawing] == [100, width]
