"""``bunryu report``: every form of it, in a browser too, and the winner composed again."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, Request, sync_playwright
from rich.console import Console

from bunryu import cli
from bunryu.commands import report
from bunryu.errors import ConfigError
from bunryu.reports import tables
from bunryu.reports.comparison import compare
from bunryu.reports.entries import RunSummary, collect
from bunryu.reports.findings import Findings, find
from bunryu.reports.page import page, thinned
from bunryu.reports.winner import experiment_of
from helpers.comparing import HOSTILE, lr_runs, made_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

BETTER = {0.1: [0.30, 0.32, 0.31, 0.33], 0.2: [0.50, 0.53, 0.50, 0.52], 0.3: [0.6, 0.7, 0.65, 0.7]}
NOISE = {0.1: [0.30, 0.45, 0.31, 0.33], 0.2: [0.40, 0.33, 0.35, 0.36]}


def findings_of(root: Path, metric: str | None = None) -> Findings:
    return find(compare(collect([root]), metric))


def hostile_sweep(root: Path) -> None:
    """A grid of two keys of which one has markup for values, and a failure that says markup."""
    for index, (name, lr) in enumerate(
        (name, lr) for name in (HOSTILE, "한글 & co|x_y") for lr in (0.1, 0.2)
    ):
        for seed in (1, 2, 3):
            made_run(
                root, f"run-{index}-{seed}", 0.3 + 0.1 * index + 0.01 * seed, [f"title={name}", f"lr={lr}"],
                seed=seed, wrong=range(index), title=name, lr=lr,
            )  # fmt: skip
    made_run(root, "failed", None, seed=9, status="failed", cause=f"{HOSTILE}\nof 훈련", title="x", lr=0.1)


# ---- the verdict


def test_a_difference_beyond_seed_noise_is_told_with_its_size(tmp_path: Path) -> None:
    lr_runs(tmp_path, BETTER)
    found = findings_of(tmp_path)
    assert found.answer == "yes"
    assert found.verdict.startswith(
        "Yes: the best (optimizer.lr=0.1) differs from the second (optimizer.lr=0.2) beyond seed noise. "
        "Its val/loss is 0.1975 lower on average (4 shared seeds, p = "
    )
    # per seed the best is wrong on 3 rows and the second on 5, its 3 among them
    assert [(each.seed, each.won, each.lost, each.p) for each in found.judged] == [
        (str(seed), 2, 0, 0.5) for seed in (1, 2, 3, 4)
    ]
    assert found.on_rows == (
        "Row by row on test their predictions do not differ in how many are right: over 4 seeds, 8 rows are "
        "right only for the best and 0 only for the second (McNemar, exact; twice the median of each seed's "
        "p = 1)."
    )


def test_higher_is_better_where_it_is(tmp_path: Path) -> None:
    lr_runs(tmp_path, BETTER)
    found = findings_of(tmp_path, "val/accuracy")
    assert found.answer == "yes"
    assert "Its val/accuracy is 0.1975 higher on average" in found.verdict


def test_noise_is_called_noise_with_what_could_have_been_seen(tmp_path: Path) -> None:
    lr_runs(tmp_path, NOISE)
    found = findings_of(tmp_path)
    assert found.gap is not None
    assert found.answer == "no"
    assert f"4 seeds show no difference below {found.gap.smallest:.2g}." in found.verdict


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ({0.1: [0.3], 0.2: [0.5]}, "share 1 seed, and seed noise shows only in two or more"),
        ({0.1: [0.3, 0.4], 0.2: [0.5, 0.6]}, "differ by the same for each of 2 shared seeds"),
        ({0.1: [0.3, 0.4]}, "all finished runs have one configuration"),
        ({}, "no run has finished"),
    ],
)
def test_too_little_to_tell_is_told(tmp_path: Path, losses: dict[float, list[float]], why: str) -> None:
    lr_runs(tmp_path, losses)
    made_run(tmp_path, "waiting", None, status="interrupted", cause="SIGTERM")
    found = findings_of(tmp_path)
    assert found.answer == "cannot tell"
    assert why in found.verdict
    assert "</html>" in page(found, "t", "")  # a page of whatever there is


def test_predictions_of_other_rows_are_not_compared(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.3, 0.31], 0.2: [0.5, 0.52]})
    table = tmp_path / "sample-tiny" / "run-0.1-1" / "predictions" / "test.csv"
    table.write_text(table.read_text("utf-8").replace("0,긍정", "77,긍정", 1), "utf-8")
    (tmp_path / "sample-tiny" / "run-0.2-2" / "predictions" / "test.csv").write_text("row\n1\n", "utf-8")
    found = findings_of(tmp_path)
    assert (found.split, found.judged) == (None, [])


# ---- tables


def printed(found: Findings, width: int) -> list[str]:
    stream = io.StringIO()
    tables.show(found, Console(file=stream, width=width, highlight=False))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminals_tables_fit_and_are_plain(tmp_path: Path, width: int) -> None:
    lr_runs(tmp_path, BETTER)
    made_run(tmp_path, "bad", None, seed=9, status="failed", cause="DataError: [red]no such file", minutes=0)
    lines = printed(findings_of(tmp_path), width)
    assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)
    assert [line.split() for line in lines if line.startswith(("1 ", "2 ", "3 "))] == [
        ["1", "0.1", "4", "0.3150", "0.013", "[0.2945,", "0.3355]"],
        ["2", "0.2", "4", "0.5125", "0.015", "[0.4886,", "0.5364]"],
        ["3", "0.3", "4", "0.6625", "0.048", "[0.5863,", "0.7387]"],
    ]
    assert any("bad" in line and "failed" in line and "[red]no such file" in line for line in lines)
    assert "cost: 1.20 hours over 12 runs; 1 whose end is not known are not counted" in lines


def test_long_tables_are_cut_on_the_terminal_and_nowhere_else(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.3 + 0.01 * seed for seed in range(20)]})
    found = findings_of(tmp_path)
    assert "  … and 5 more, with -o FOLDER" in printed(found, 80)
    assert len(tables.run_table(found)[1]) == 20


def test_csv_has_every_run_and_every_metric_to_the_bit(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.1 + 0.2, 0.4]})
    made_run(tmp_path, "bad", None, seed=9, status="failed", cause='Error: "a",\nb', minutes=0)
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(findings_of(tmp_path)))))
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert float(rows[0]["val/loss"]) == 0.1 + 0.2
    assert (rows[0]["run"], rows[0]["seed"], rows[0]["hours"]) == ("sample-tiny/run-0.1-1", "1", "0.100000")
    assert (rows[2]["status"], rows[2]["cause"], rows[2]["hours"]) == ("failed", 'Error: "a",\nb', "")


def test_markdown_and_latex_keep_text_text(tmp_path: Path) -> None:
    hostile_sweep(tmp_path)
    found = findings_of(tmp_path)
    text = tables.markdown(found)
    assert HOSTILE not in text
    assert r"| 3 | 한글 \& co\|x\_y | 0.1 |" in text
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if "| 한글" in line}
    assert columns == {8}
    table = tables.latex(found)
    assert r"3 & 한글 \& co\textbar{}x\_y & 0.1 & 3 &" in table
    assert r"1 & \textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{} & 0.1" in table
    body = table.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [6] * 4


# ---- the page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, path: Path, width: int) -> tuple[Page, list[Request], list[str]]:
    requests: list[Request] = []
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 800})
    context.on("request", lambda request: requests.append(request))
    context.on("console", lambda message: complaints.append(message.text))
    shown = context.new_page()
    shown.goto(path.as_uri())
    return shown, requests, complaints


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("width", [1000, 390])
def test_the_page_stands_in_a_browser_alone(tmp_path: Path, browser: Browser, width: int) -> None:
    hostile_sweep(tmp_path)
    assert report.main([str(tmp_path), "-o", str(tmp_path / "report")]) == 0
    path = tmp_path / "report" / "report.html"
    shown, requests, complaints = opened(browser, path, width)
    assert [request.url for request in requests] == [path.as_uri()]
    assert complaints == []
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert shown.locator("script").count() == 0
    assert shown.locator("h2").all_text_contents()[1:] == [
        "Configurations", "What mattered", "The winner as an experiment", "val/loss over the keys",
        "All runs at once", "Learning curves", "Not ranked", "Runs",
        "The best against the second, row by row", "How the figures are made",
    ]  # fmt: skip
    # two keys, their heat map, two kinds of curves, parallel coordinates: each as large as one can read
    measure = "all => all.map(one => one.getBoundingClientRect().width)"
    sizes = shown.locator("svg.chart").evaluate_all(measure)
    assert len(sizes) == 6
    assert min(sizes) > 250
    rows = shown.locator("section[aria-labelledby=groups] tbody tr")
    assert rows.first.locator("td").all_text_contents()[:5] == ["1", HOSTILE, "0.1", "3", "0.3200"]
    assert "of 훈련" in str(shown.locator("section[aria-labelledby=others] .cause").text_content())


def test_a_diverged_run_does_not_stretch_the_page(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.3, 0.31, 0.32], 0.2: [0.4, 0.41, 0.42], 9.0: [4e6]})
    drawn = page(findings_of(tmp_path), "t", "")
    assert "4000000" not in drawn.split('id="over"')[1].split("</section>")[0]
    assert 'class="dot series-0 faint off"' in drawn


def test_a_long_curve_is_thinned_and_ends_where_it_ends() -> None:
    points = [(float(step), 1.0) for step in range(1000)]
    assert len(thinned(points)) <= 61
    assert thinned(points)[-1] == (999.0, 1.0)
    assert thinned(points[:3]) == points[:3]


# ---- the winner


def composed(*overrides: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The config of a command line, resolved."""
    assert cli.run(["train", "--cfg", "job", "--resolve", *overrides]) == 0
    config: dict[str, object] = yaml.safe_load(capsys.readouterr().out)
    return config


OVERRIDES = [
    "model=small", "corpus/cleaner=kcbert", "experiment=nsmc_small", "debug=limit", "optimizer.lr=5e-4",
    "seed=3", "+trainer.max_time=00:01:00:00", "corpus.label_names={0: 나쁨, 1: '좋음: !'}", "epochs=7",
    "output_root=elsewhere", "scheduler=constant",
]  # fmt: skip


@pytest.mark.parametrize("count", [1, 5, len(OVERRIDES)])
def test_the_winner_composes_to_what_won(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = OVERRIDES[:count]
    before = composed(*overrides, capsys=capsys)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(before, allow_unicode=True), "utf-8")
    winner = RunSummary("run", "finished", path=run, overrides=overrides)
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path / "mine"))
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    text = experiment_of(winner, "best of 4\nby val/loss")
    (tmp_path / "mine" / "experiment" / "winner.yaml").write_text(text, "utf-8")
    assert text.startswith("# @package _global_\n# best of 4 by val/loss\n# run: run\n")
    after = composed("experiment=winner", capsys=capsys)
    assert {**after, "output_root": before["output_root"]} == before


def test_a_winner_whose_config_is_damaged_is_written_from_its_manifest(tmp_path: Path) -> None:
    run = made_run(tmp_path, "run", 0.5, ["epochs=2", "callbacks=[default,early_stopping]"], epochs=2)
    (run / "config.yaml").write_text("a: [", "utf-8")
    (entry,) = collect([run])
    assert yaml.safe_load(experiment_of(entry, "best")) == {
        "defaults": [{"override /callbacks": ["default", "early_stopping"]}], "seed": 1, "epochs": 2,
    }  # fmt: skip


def test_what_a_file_cannot_say_is_said_in_a_comment(tmp_path: Path) -> None:
    winner = RunSummary(
        "job 3", "finished", overrides=["~callbacks.progress_bar", "epochs=2", "sweep_name=x"],
        config={"seed": 4, "epochs": 2, "callbacks": {}},
    )  # fmt: skip
    text = experiment_of(winner, "best")
    assert "# not said here, to be added on the command line: '~callbacks.progress_bar'\n" in text
    assert yaml.safe_load(text) == {"seed": 4, "epochs": 2}


# ---- the door


def test_a_folder_gets_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lr_runs(tmp_path / "outputs", BETTER)
    assert report.main([str(tmp_path / "outputs"), "-o", str(tmp_path / "a" / "b")]) == 0
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "report.csv", "report.html", "report.md", "report.tex", "winner.yaml",
    ]  # fmt: skip
    winner = yaml.safe_load((tmp_path / "a" / "b" / "winner.yaml").read_text("utf-8"))
    assert winner == {"seed": 1, "optimizer": {"lr": 0.1}}
    assert str(tmp_path) not in (tmp_path / "a" / "b" / "report.html").read_text("utf-8")
    assert "Yes: the best (optimizer.lr=0.1)" in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.3]})
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigError, match="cannot write"):
        report.main([str(tmp_path), "-o", str(tmp_path / "file" / "below")])


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), ([], 2), (["nowhere"], 2), (["--metrc", "x", "."], 2)]
)
def test_help_and_mistakes_load_nothing_heavy(arguments: list[str], code: int, tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "from bunryu.errors import ConfigError\n"
        "from bunryu.commands.report import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except ConfigError as error:\n"
        "    code = error.exit_code\n"
        "except SystemExit as end:\n"
        "    code = end.code or 0\n"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    found, loaded = json.loads(done.stdout.splitlines()[-1])
    assert found == code
    assert {"torch", "hydra", "omegaconf", "numpy", "scipy", "rich", "jinja2"} & set(loaded) == set()
