from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from rich.console import Console

from bunryu.reports import tables
from helpers.comparing import HOSTILE, findings_of, hostile_sweep, lr_runs, made_run


def test_the_terminals_tables_fit_plain_and_cut_and_csv_has_every_run_to_the_bit(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.1 + 0.2, 0.32, 0.31, 0.33], 0.2: [0.50, 0.53] * 8})
    cause = 'DataError: [red]no "such",\nfile'
    made_run(tmp_path, "bad", None, status="failed", cause=cause, minutes=0)
    for width in (80, 120):
        stream = io.StringIO()
        tables.show(findings_of(tmp_path), Console(file=stream, width=width, highlight=False))
        lines = stream.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert "\x1b" not in "".join(lines)
        assert [line.split() for line in lines if "[0." in line] == [
            ["1", "0.1", "4", "0.3150", "0.013", "[0.2945,", "0.3355]"],
            ["2", "0.2", "16", "0.5150", "0.015", "[0.5067,", "0.5233]"],
        ]
        assert any(re.search(r'bad .*failed .*\[red\]no "such", file', line) for line in lines)
        assert "cost: 2.00 hours over 20 runs; 1 whose end is not known are not counted" in lines
        assert "  … and 5 more, with -o FOLDER" in lines
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(findings_of(tmp_path)))))
    assert [row["rank"] for row in rows] == [*map(str, range(1, 21)), ""]
    assert float(rows[0]["val/loss"]) == 0.1 + 0.2
    assert (rows[0]["run"], rows[0]["seed"], rows[0]["hours"]) == ("sample-tiny/run-0.1-1", "1", "0.100000")
    assert (rows[20]["status"], rows[20]["cause"], rows[20]["hours"]) == ("failed", cause, "")


def test_a_narrow_terminal_leaves_out_columns_and_cuts_no_number(tmp_path: Path) -> None:
    keys = [f"a_rather_long_key_{index}" for index in range(5)]
    for run in range(12):
        values = {key: (run + 1) * 10**index for index, key in enumerate(keys)}
        typed = [f"{key}={value}" for key, value in values.items()]
        made_run(tmp_path, f"run-{run}", 0.1 + run / 100, typed, test=0.9, **values)

    def shown(width: int) -> list[str]:
        stream = io.StringIO()
        tables.show(findings_of(tmp_path), Console(file=stream, width=width, highlight=False))
        assert max(map(len, stream.getvalue().splitlines())) <= width
        return stream.getvalue().splitlines()

    narrow = shown(80)
    assert [line.split() for line in narrow[1:13:11]] == [
        ["#", *keys[:2], "mean", "test/accuracy"], ["10", "10", "100", "0.1900", "0.9000"],
    ]  # fmt: skip
    left_out = f"… and {', '.join(keys[2:])}, seeds, std, 95% interval, test std, with -o FOLDER or a wider "
    assert left_out in " ".join(" ".join(narrow).split())
    assert not [line for line in shown(200) if "a wider" in line]


def test_markdown_and_latex_keep_text_text(tmp_path: Path) -> None:
    hostile_sweep(tmp_path)
    text, table = tables.markdown(findings_of(tmp_path)), tables.latex(findings_of(tmp_path))
    assert HOSTILE not in text
    assert r"| 3 | 한글 \& co\|x\_y | 0.1 |" in text
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if "| 한글" in line} == {8}
    assert r"3 & 한글 \& co\textbar{}x\_y & 0.1 & 3 &" in table
    assert r"1 & \textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{} & 0.1" in table
    body = table.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [6] * 4
