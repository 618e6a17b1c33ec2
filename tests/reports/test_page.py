from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from bunryu.commands import report
from bunryu.reports.page import page, thinned
from helpers.comparing import HOSTILE, findings_of, hostile_sweep, lr_runs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome")
def test_the_page_stands_in_a_browser_alone(tmp_path: Path) -> None:
    hostile_sweep(tmp_path)
    assert report.main([str(tmp_path), "-o", str(tmp_path / "report")]) == 0
    address = (tmp_path / "report" / "report.html").as_uri()
    seen: list[str] = []  # what is requested, and what the browser complains about
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page()
        shown.on("request", lambda request: seen.append(request.url))
        shown.on("console", lambda message: seen.append(message.text))
        shown.goto(address)
        for width in (390, 1000):
            shown.set_viewport_size({"width": width, "height": 800})
            assert shown.evaluate("document.documentElement.scrollWidth") == width
            # two keys, their heat map, two kinds of curves, parallel coordinates: each large enough to read
            sizes = shown.locator("svg.chart").evaluate_all("all => all.map(one => one.clientWidth)")
            assert (len(sizes), min(sizes) > 250) == (6, True)
        assert shown.locator("script").count() == 0
        assert shown.locator("h2").all_text_contents()[1:] == [
            "Configurations", "What mattered", "The winner as an experiment", "val/loss over the keys",
            "All runs at once", "Learning curves", "Not ranked", "Runs",
            "The best against the second, row by row", "How the figures are made",
        ]  # fmt: skip
        rows = shown.locator("section[aria-labelledby=groups] tbody tr")
        assert rows.first.locator("td").all_text_contents()[:5] == ["1", HOSTILE, "0.1", "3", "0.3200"]
        assert "of 훈련" in str(shown.locator("section[aria-labelledby=others] .cause").text_content())
        browser.close()
    assert seen == [address]


def test_only_the_best_runs_curve_is_the_bests_and_a_diverged_run_stretches_nothing(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.3, 0.31, 0.32], 0.2: [0.4, 0.41, 0.42], 9.0: [4e6]})
    findings = findings_of(tmp_path)
    for best in (2, 0):  # with the best run's curves, and without them
        drawn = page(findings, "t", "")
        over, curves = (drawn.split(f'id="{name}"')[1].split("</section>")[0] for name in ("over", "curves"))
        assert ("4000000" in over, 'class="dot series-0 faint off"' in over) == (False, True)
        assert (curves.count('class="line best"'), curves.count('class="line faint rank-')) == (best, 12)
        (tmp_path / "sample-tiny/run-0.1-1/metrics.csv").unlink(missing_ok=True)


def test_a_long_curve_is_thinned_and_ends_where_it_ends() -> None:
    points = [(float(step), 1.0) for step in range(1000)]
    assert len(thinned(points)) <= 61
    assert thinned(points)[-1] == (999.0, 1.0)
    assert thinned(points[:3]) == points[:3]
