"""The pictures of the roofline page: SVG by bunryu's own charts, made a PNG by a browser without a window."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bunryu.reports import svg
from costs import Machine

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLOPS, INTENSITY = (10, 15), (0, 4)  # powers of ten that the roofs' axes run between
UNITS = ("10 G", "100 G", "1 T", "10 T", "100 T", "1 P")
COLOURS = ("#0072b2", "#d55e00", "#008060", "#8a5aa8")
STYLE = """
body { margin: 0; background: #fff; font-family: system-ui, "Noto Sans", "DejaVu Sans", sans-serif; }
main { display: grid; grid-template-columns: 1fr 1fr; gap: 14px 24px; width: 1040px; padding: 16px; }
.chart { display: block; width: 100%; }
.chart text { font-size: 10px; fill: #5b6470; }
.chart .end { text-anchor: end; }
.chart .middle { text-anchor: middle; }
.chart .heading { font-size: 13px; font-weight: 600; fill: #1b1f24; }
.chart .label { fill: #1b1f24; }
.chart .grid { stroke: #e3e6ea; fill: none; }
.chart .axis { stroke: #5b6470; fill: none; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
""" + "".join(
    f".line.series-{index} {{ stroke: {colour}; }} .dot.series-{index} {{ fill: {colour}; }}\n"
    for index, colour in enumerate(COLOURS)
)


def roofs(
    title: str, marks: Sequence[tuple[Machine, int, float]], measured: tuple[float, float]
) -> str:  # fmt: skip
    """What each machine allows over FLOPs a byte, both axes logarithmic.

    Args:
        title: what stands above the plot.
        marks: a machine, a batch size and its FLOPs a byte.
        measured: ``small`` on this CPU, FLOPs a byte and FLOP/s.
    """
    frame = svg.Frame(INTENSITY, FLOPS)
    parts = [svg.heading(title), *_axes(frame)]
    machines = list(dict.fromkeys(machine for machine, _, _ in marks))
    highest = max(machines, key=lambda machine: machine.flops)
    for index, machine in enumerate(machines):
        first = max(10.0 ** INTENSITY[0], 10 ** FLOPS[0] / machine.bandwidth)
        corners = (first, machine.flops / machine.bandwidth, 10.0 ** INTENSITY[1])
        path = "L".join(_under_roof(frame, machine, at) for at in corners)
        parts.append(f'<path class="line series-{index}" d="M{path}"/>')
        close = any(machine.flops < other.flops < 2 * machine.flops for other in machines)
        y = frame.y(math.log10(machine.flops)) + (12 if close else -5)  # no name between two close roofs
        parts.append(
            f'<text class="end" style="fill: {COLOURS[index]}" x="{svg.WIDTH - svg.RIGHT}" y="{y}">'
            f"{escape(machine.name)}</text>"
        )
    for machine, batch, at in marks:
        x, y = _under_roof(frame, machine, at).split()
        parts.append(f'<circle class="dot series-{machines.index(machine)}" cx="{x}" cy="{y}" r="3.5"/>')
        if machine in (machines[0], highest):
            parts.append(
                f'<text class="end" x="{float(x) - 6:.2f}" y="{float(y) - 4:.2f}">{batch} rows</text>'
            )
    x, y = _place(frame, *measured).split()
    parts.append(
        f'<circle cx="{x}" cy="{y}" r="3.5" fill="#fff" stroke="{COLOURS[0]}" stroke-width="1.5"/>'
        f'<text x="{float(x) + 7}" y="{float(y) + 10}">small, measured</text>'
    )
    return svg.drawing(title, parts)


def growth(title: str, points: Sequence[tuple[int, float, float]], label: str) -> str:
    """Measured and floor over what grows; points are (at, measured, floor)."""
    series = {
        "measured": [(at, measured) for at, measured, _ in points],
        "floor": [(at, floor) for at, _, floor in points],
    }
    return svg.lines(title, series, label)


def draw(svgs: Sequence[str], path: Path) -> None:
    """Write the pictures into one PNG."""
    if CHROMIUM is None:
        print("No chromium, chromium-browser or google-chrome: the plot is not drawn.", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    page_text = f"<!doctype html><style>{STYLE}</style><main>{''.join(svgs)}</main>"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1080, "height": 900})
        page.set_content(page_text)
        page.locator("main").screenshot(path=str(path))
        browser.close()


def _axes(frame: svg.Frame) -> list[str]:
    """Both axes with their powers of ten."""
    powers = [(power, f"{10**power:,}") for power in range(INTENSITY[0], INTENSITY[1] + 1)]
    x_axis = svg.x_axis(frame, powers, "FLOPs a byte that weights and AdamW move")
    return [*x_axis, *svg.grid(frame, enumerate(UNITS, FLOPS[0]))]


def _under_roof(frame: svg.Frame, machine: Machine, intensity: float) -> str:
    return _place(frame, intensity, min(machine.flops, intensity * machine.bandwidth))


def _place(frame: svg.Frame, intensity: float, flops: float) -> str:
    return f"{frame.x(math.log10(intensity))} {frame.y(math.log10(flops))}"
