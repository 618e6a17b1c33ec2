from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from bunryu.reports import tables
from bunryu.reports.findings import Findings
from helpers.comparing import HOSTILE, findings_of, hostile_sweep, lr_runs, made_run


def printed(found: Findings, width: int) -> list[str]:
    stream = io.StringIO()
    tables.show(found, Console(file=stream, width=width, highlight=False))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminals_tables_fit_and_are_plain(tmp_path: Path, width: int) -> None:
    lr_runs(tmp_path, {0.1: [0.30, 0.32, 0.31, 0.33], 0.2: [0.50, 0.53, 0.50, 0.52]})
    made_run(tmp_path, "bad", None, seed=9, status="failed", cause="DataError: [red]no such file", minutes=0)
    lines = printed(findings_of(tmp_path), width)
    assert max(map(len, lines)) <= width
    assert "\x1b" not in "".join(lines)
    assert [line.split() for line in lines if "[0." in line] == [
        ["1", "0.1", "4", "0.3150", "0.013", "[0.2945,", "0.3355]"],
        ["2", "0.2", "4", "0.5125", "0.015", "[0.4886,", "0.5364]"],
    ]
    assert any("bad" in line and "failed" in line and "[red]no such file" in line for line in lines)
    assert "cost: 0.80 hours over 8 runs; 1 whose end is not known are not counted" in lines


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
