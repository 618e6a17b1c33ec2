from __future__ import annotations

import math
import re
from xml.etree.ElementTree import Element, fromstring

import pytest

from bunryu.reports.svg import bars, lines, meter, reliability

SVG = "{http://www.w3.org/2000/svg}"
TEXT = "\"'><script>&"


def parsed(text: str) -> Element:
    """The drawing, of which every number must be inside it."""
    drawing = fromstring(text)
    _, _, width, height = map(float, drawing.attrib["viewBox"].split())
    for element in list(drawing.iter())[1:]:
        for name in {"x", "cx", "y", "cy", "width", "height"} & element.attrib.keys():
            assert 0 <= float(element.attrib[name]) <= (width if name in ("x", "cx", "width") else height)
    return drawing


def all_of(drawing: Element, kind: str, style: str) -> list[Element]:
    return [each for each in drawing.iter(f"{SVG}{kind}") if style in each.get("class", "").split()]


def words(drawing: Element) -> list[str]:
    return [str(element.text) for element in drawing.iter(f"{SVG}text")]


def dots(drawing: Element, index: int) -> list[tuple[float, float]]:
    circles = all_of(drawing, "circle", f"series-{index}")
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in circles]


def test_a_chart_of_next_to_nothing_is_an_image_with_texts_that_stay_text() -> None:
    empty = (
        lines(TEXT, {TEXT: []}, TEXT),
        bars(TEXT, [0, 0], [0.5, 0.75, 1.0], TEXT, 0),
        reliability(TEXT, []),
    )
    for drawing, texts in zip(map(parsed, empty), (3, 2, 1), strict=True):
        assert (drawing.get("role"), drawing[0].tag, drawing[0].text) == ("img", f"{SVG}title", TEXT)
        assert words(drawing).count(TEXT) == texts
        tags = {element.tag.removeprefix(SVG) for element in drawing.iter()}
        assert tags <= {"svg", "title", "path", "circle", "text", "rect"}


def test_points_stand_in_proportion_without_those_not_finite_and_long_lines_have_no_dots() -> None:
    line = [(0, 0.0), (50, 0.25), (60, math.nan), (70, math.inf), (100, 1.0)]
    drawing = parsed(lines("t", {"a": line, "b": [(100, 0.5)], "c": [(0, math.nan)]}, "step"))
    (left, low), (middle, between), (right, high) = dots(drawing, 0)
    assert middle - left == pytest.approx(right - middle, abs=0.02)
    assert (low - between) / (low - high) == pytest.approx(0.25, abs=0.001)
    assert (dots(drawing, 1), dots(drawing, 2)) == ([(right, pytest.approx((low + high) / 2, abs=0.02))], [])
    # a stroke of the legend and a line for the points; the single point has the stroke only
    assert [len(all_of(drawing, "path", f"series-{index}")) for index in (0, 1)] == [2, 1]
    drawing = parsed(lines("t", {"long": [(step, float(step)) for step in range(200)]}, "step"))
    assert dots(drawing, 0) == []
    assert len(re.findall("[ML]", all_of(drawing, "path", "series-0")[1].attrib["d"])) == 200


def test_axes_carry_round_numbers_around_the_values() -> None:
    found = words(parsed(lines("t", {"a": [(0, 0.23), (4000, 0.71)]}, "step")))
    assert found == ["t", "0.2", "0.4", "0.6", "0.8", "0", "1,000", "2,000", "3,000", "4,000", "step", "a"]
    shares = words(parsed(lines("t", {"a": [(0, 0.5), (1, 1.0)]}, "step", "%")))
    assert {"40%", "60%", "80%", "100%"} <= set(shares)
    for value in (0.0, -3.0, 1e-5, 1e9):  # all values equal
        drawing = parsed(lines("t", {"a": [(7, value), (8, value)]}, "step"))
        assert len({y for _, y in dots(drawing, 0)}) == 1
        assert len(set(words(drawing))) == len(words(drawing))


def test_bars_are_as_high_as_their_counts_and_a_meter_as_wide_as_its_share() -> None:
    drawing = parsed(bars("t", [10, 0, 40, 20], [0.0, 0.25, 0.5, 0.75, 1.0], "share", 1))
    found = all_of(drawing, "rect", "series-1")
    heights = [float(bar.attrib["height"]) for bar in found]
    assert [height / heights[2] for height in heights] == pytest.approx([0.25, 0, 1, 0.5], abs=0.001)
    assert found[2][0].text == "50.0% to 75.0%: 40 rows"
    assert len({float(bar.attrib["y"]) + float(bar.attrib["height"]) for bar in found}) == 1
    hidden = fromstring(meter(0.345))
    assert hidden.attrib["aria-hidden"] == "true"
    assert [rect.attrib["width"] for rect in hidden] == ["100", "34.5"]


@pytest.mark.parametrize("accuracy", [0.5, 1.0])
def test_a_bin_is_a_bar_of_its_accuracy_and_the_gap_to_its_confidence(accuracy: float) -> None:
    full = {"from": 0.8, "to": 1.0, "rows": 1234, "confidence": 0.9, "accuracy": accuracy}
    empty = {**full, "rows": 0, "confidence": None, "accuracy": None}
    drawing = parsed(reliability("t", [empty, full, {**full, "confidence": math.nan}]))
    # the second of each is the legend's
    bar, gap = all_of(drawing, "rect", "bar")[0], all_of(drawing, "rect", "gap")[0]
    share = float(gap.attrib["height"]) / float(bar.attrib["height"])
    assert share == pytest.approx(abs(0.9 - accuracy) / accuracy, abs=0.001)
    assert [group[0].text for group in drawing.iter(f"{SVG}g")] == [
        f"confidence 80.0% to 100.0%: 1,234 rows, mean confidence 90.0%, accuracy {accuracy:.1%}"
    ]
