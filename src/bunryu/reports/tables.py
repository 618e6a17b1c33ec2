"""A report as tables: on the terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bunryu.errors import printable
from bunryu.reports.comparison import counted, shown
from bunryu.reports.findings import Findings
from bunryu.reports.significance import Summary

HeaderAndRows = tuple[list[str], list[list[str]]]
TERMINAL_ROWS = 15  # of a table on the terminal; the files hold all
TEXT_WIDTH = 12  # of a text on the terminal, which goes on in the next line
# What a narrow terminal does without first; then come the swept keys, the last one first.
DROPPED_FIRST = ("time", "by chance", "values", "95% interval", "test std", "seeds", "std")
NUMBER = re.compile(r"\[?[-+]?[\d., e+-]+( \w+|%)?\]?|–")
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", '"': r"\textquotedbl{}", "|": r"\textbar{}",
})  # fmt: skip
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def interval(summary: Summary) -> str:
    return "–" if summary.low is None else f"[{figure(summary.low)}, {figure(summary.high)}]"


def deviation(summary: Summary | None) -> str:
    return "–" if summary is None or summary.std is None else f"{summary.std:#.2g}"


def duration(hours: float | None) -> str:
    """Hours, or less than one in minutes or seconds."""
    if hours is None:
        return "–"
    if hours >= 1:
        return f"{hours:,.2f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def short_keys(keys: Sequence[str]) -> list[str]:
    """The keys' last parts, where these differ."""
    last = [key.rpartition(".")[2] for key in keys]
    return [short if last.count(short) == 1 else key for short, key in zip(last, keys, strict=True)]


def group_table(findings: Findings) -> HeaderAndRows:
    comparison, test = findings.comparison, findings.test
    header = ["#", *short_keys(comparison.keys), "seeds", "mean", "std", "95% interval"]
    pairs = zip(comparison.groups, findings.summaries, findings.on_test, strict=True)
    return header + ([test, "test std"] if test else []), [
        [str(place), *map(shown, group.values.values()), str(summary.n), figure(summary.mean),
         deviation(summary), interval(summary),
         *([figure(on_test.mean if on_test else None), deviation(on_test)] if test else [])]
        for place, (group, summary, on_test) in enumerate(pairs, 1)
    ]  # fmt: skip


def run_table(findings: Findings) -> HeaderAndRows:
    comparison, columns = findings.comparison, findings.comparison.columns.values()
    metrics = list(filter(None, (comparison.metric.name, findings.test)))
    return ["#", *short_keys(comparison.keys), "seed", *metrics, "time", "run"], [
        [str(index + 1), *(shown(column[index]) for column in columns), shown(run.seed),
         *(figure(run.metrics.get(metric)) for metric in metrics), duration(run.hours), run.name]
        for index, run in enumerate(comparison.ranked)
    ]  # fmt: skip


def importance_table(findings: Findings) -> HeaderAndRows:
    return ["key", "share of variance", "by chance", "values"], [
        [each.key, f"{each.share:.1%}", f"{each.chance:.1%}", str(each.levels)]
        for each in findings.importance
    ]


def unranked_table(findings: Findings) -> HeaderAndRows:
    return ["run", "status", "cause"], [
        [entry.name, entry.status, " ".join(why.split())[:300]] for entry, why in findings.comparison.unranked
    ]


def _tables(findings: Findings) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of each table that has rows."""
    tables = {f"Configurations by {findings.comparison.metric}": group_table, "Runs": run_table,
              "What mattered": importance_table, "Not ranked": unranked_table}  # fmt: skip
    return [(title, *made) for title, table in tables.items() if (made := table(findings))[1]]


def cost(findings: Findings) -> str:
    timed = sum(entry.hours is not None for entry in findings.comparison.entries)
    missing = f"; {findings.untimed} whose end is not known are not counted" if findings.untimed else ""
    return f"{findings.hours:.2f} hours over {counted(timed, 'run')}{missing}"


def show(findings: Findings, console: Console) -> None:
    comparison = findings.comparison
    least = [*DROPPED_FIRST, *reversed(short_keys(comparison.keys))]
    for title, header, rows in _tables(findings):
        console.print(Text(f"{title} ({len(rows)})", style="bold"))
        fitted, left_out = _fitted(header, rows[:TERMINAL_ROWS], console.width, least)
        console.print(fitted)
        if left_out:
            console.print(Text(f"  … and {', '.join(left_out)}, with -o FOLDER or a wider terminal"))
        if len(rows) > TERMINAL_ROWS:
            console.print(Text(f"  … and {len(rows) - TERMINAL_ROWS} more, with -o FOLDER"))
        console.print()
    console.print(Text(printable(findings.verdict), style="green" if findings.answer == "yes" else "yellow"))
    rows_compared = [findings.row_verdict] if findings.split else []
    for line in (*rows_compared, *comparison.notes, f"cost: {cost(findings)}"):
        console.print(Text(printable(line)))


def markdown(findings: Findings) -> str:
    """The report as Markdown."""
    comparison, notes = findings.comparison, (f"Note: {note}" for note in findings.comparison.notes)
    parts = [f"# {len(comparison.ranked)} runs by {comparison.metric}"]
    parts += map(_escaped, (findings.verdict, findings.row_verdict, *notes))
    for title, header, rows in _tables(findings):
        lines = (" | ".join(map(_escaped, row)) for row in (header, ["---"] * len(header), *rows))
        parts += [f"## {title}", "\n".join(f"| {line} |" for line in lines)]
    return "\n\n".join([*parts, f"Cost: {cost(findings)}."]) + "\n"


def latex(findings: Findings) -> str:
    """The table of configurations for a paper, with booktabs."""
    header, rows = group_table(findings)
    head, *body = (" & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in (header, *rows))
    return "\n".join([
        r"% needs \usepackage{booktabs}; hangul needs kotex or XeLaTeX",
        f"% {' '.join(findings.verdict.split())}",
        rf"\begin{{tabular}}{{r{'l' * len(findings.comparison.keys)}rrrr{'rr' if findings.test else ''}}}",
        r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", "",
    ])  # fmt: skip


def comma_separated(findings: Findings) -> str:
    """Every run as a row of CSV, ranked ones first; metrics to the last bit."""
    comparison, columns = findings.comparison, findings.comparison.columns.values()
    groups = enumerate(comparison.groups, 1)
    group_numbers = {id(run): number for number, group in groups for run in group.runs.values()}
    metrics = list(dict.fromkeys(name for entry in comparison.entries for name in entry.metrics))
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    names = ["rank", "configuration", "run", "status", "seed", *comparison.keys, *metrics, "hours", "cause"]
    writer.writerow(names)
    ranked = [(run, "") for run in comparison.ranked]
    for index, (entry, why) in enumerate([*ranked, *comparison.unranked]):
        is_ranked = index < len(ranked)
        places = [index + 1, group_numbers[id(entry)]] if is_ranked else ["", ""]
        values = [shown(column[index]) if is_ranked else "" for column in columns]
        name = entry.name if entry.path is None else f"{entry.path.parent.name}/{entry.path.name}"
        figures = [repr(entry.metrics[metric]) if metric in entry.metrics else "" for metric in metrics]
        hours = "" if entry.hours is None else f"{entry.hours:.6f}"
        writer.writerow([*places, name, entry.status, entry.seed, *values, *figures, hours, why])
    return content.getvalue()


def numeric(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Whether each column holds numbers only."""
    return [all(NUMBER.fullmatch(row[at]) for row in rows) for at in range(len(header))]


def _fitted(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, least: Sequence[str]
) -> tuple[Table, list[str]]:
    """The table, and which columns of the ``least`` had to go, in their order, so that no number is cut."""
    numbers = numeric(header, rows)
    sizes = [max(cell_len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    needed = [size if numbers[at] else min(size, TEXT_WIDTH) for at, size in enumerate(sizes)]
    kept = list(range(len(header)))
    for name in least:
        if sum(needed[at] + 1 for at in kept) - 1 > width:
            kept = [at for at in kept if header[at] != name]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for name, number in ((header[at], numbers[at]) for at in kept):  # long texts fold
        title = Text(printable(name))
        table.add_column(title, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        table.add_row(*(Text(printable(row[at])) for at in kept))
    return table, [name for at, name in enumerate(header) if at not in kept]


def _escaped(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))
