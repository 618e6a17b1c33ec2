"""A report as tables: on the terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bunryu.reports.comparison import shown
from bunryu.reports.findings import Findings
from bunryu.reports.significance import Summary

Rows = list[list[str]]

TERMINAL_ROWS = 15  # of a table on the terminal; the files hold all
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", '"': r"\textquotedbl{}", "|": r"\textbar{}",
}  # fmt: skip
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def figure(value: float | None) -> str:
    """A metric as tables show it."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def interval(summary: Summary) -> str:
    """A mean's 95% interval."""
    return "–" if summary.low is None else f"[{figure(summary.low)}, {figure(summary.high)}]"


def deviation(summary: Summary) -> str:
    """A standard deviation, of which two digits are enough."""
    return "–" if summary.std is None else f"{summary.std:#.2g}"


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


def group_table(findings: Findings) -> tuple[list[str], Rows]:
    """Groups, the best first: header and rows."""
    comparison = findings.comparison
    header = ["#", *short_keys(comparison.keys), "seeds", "mean", "std", "95% interval"]
    rows = [
        [str(place), *map(shown, group.values.values()), str(summary.n), figure(summary.mean),
         deviation(summary), interval(summary)]
        for place, (group, summary) in enumerate(zip(comparison.groups, findings.summaries, strict=True), 1)
    ]  # fmt: skip
    return header, rows


def run_table(findings: Findings) -> tuple[list[str], Rows]:
    """Ranked runs, the best first: header and rows."""
    comparison = findings.comparison
    columns = list(comparison.columns.values())
    header = ["#", *short_keys(comparison.keys), "seed", comparison.metric.name, "time", "run"]
    rows = [
        [str(place), *(shown(column[place - 1]) for column in columns), shown(run.seed),
         figure(comparison.value(run)), duration(run.hours), run.name]
        for place, run in enumerate(comparison.ranked, 1)
    ]  # fmt: skip
    return header, rows


def importance_table(findings: Findings) -> tuple[list[str], Rows]:
    """Swept keys by how much they matter: header and rows."""
    rows = [
        [each.key, f"{each.share:.1%}", f"{each.chance:.1%}", str(each.levels)]
        for each in findings.importance
    ]
    return ["key", "share of variance", "by chance", "values"], rows


def unranked_table(findings: Findings) -> tuple[list[str], Rows]:
    """What did not finish, with why: header and rows."""
    rows = [
        [entry.name, entry.status, " ".join(why.split())[:300]] for entry, why in findings.comparison.others
    ]
    return ["run", "status", "cause"], rows


def cost(findings: Findings) -> str:
    """What all of it took, in hours."""
    known = sum(entry.hours is not None for entry in findings.comparison.entries)
    missing = f"; {findings.untimed} whose end is not known are not counted" if findings.untimed else ""
    return f"{findings.hours:.2f} hours over {known} {'run' if known == 1 else 'runs'}{missing}"


def show(findings: Findings, console: Console) -> None:
    """Print the report."""
    comparison = findings.comparison
    for title, (header, rows) in (
        (f"configurations by {comparison.metric}", group_table(findings)),
        ("runs", run_table(findings)),
        ("what mattered", importance_table(findings)),
        ("not ranked", unranked_table(findings)),
    ):
        if rows:
            console.print(Text(f"{title} ({len(rows)})", style="bold"))
            console.print(_rich(header, rows[:TERMINAL_ROWS]))
            if len(rows) > TERMINAL_ROWS:
                console.print(Text(f"  … and {len(rows) - TERMINAL_ROWS} more, with -o FOLDER"))
            console.print()
    style = {"yes": "green", "no": "yellow"}.get(findings.answer, "yellow")
    console.print(Text(findings.verdict, style=style))
    for line in (findings.on_rows if findings.split else "", *comparison.notes, f"cost: {cost(findings)}"):
        if line:
            console.print(Text(line))


def markdown(findings: Findings) -> str:
    """The report as Markdown."""
    comparison = findings.comparison
    parts = [f"# {len(comparison.ranked)} runs by {comparison.metric}", _escaped(findings.verdict)]
    parts += [_escaped(findings.on_rows), *(f"Note: {_escaped(note)}" for note in comparison.notes)]
    for title, (header, rows) in (
        ("Configurations", group_table(findings)),
        ("What mattered", importance_table(findings)),
        ("Runs", run_table(findings)),
        ("Not ranked", unranked_table(findings)),
    ):
        if rows:
            lines = [header, ["---"] * len(header), *rows]
            parts.append(f"## {title}")
            parts.append(
                "\n".join(
                    "| " + " | ".join(cell if cell == "---" else _escaped(cell) for cell in line) + " |"
                    for line in lines
                )
            )
    return "\n\n".join([*parts, f"Cost: {cost(findings)}."]) + "\n"


def latex(findings: Findings) -> str:
    """The table of configurations for a paper, with booktabs."""
    header, rows = group_table(findings)
    keys = len(findings.comparison.keys)
    lines = [
        "% needs \\usepackage{booktabs}; hangul needs kotex or XeLaTeX",
        f"% {' '.join(findings.verdict.split())}",
        f"\\begin{{tabular}}{{r{'l' * keys}rrrr}}",
        "\\toprule",
        _latex_row(header),
        "\\midrule",
        *map(_latex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def comma_separated(findings: Findings) -> str:
    """Every run as a row of CSV, ranked ones first."""
    comparison = findings.comparison
    place = {
        id(run): number for number, group in enumerate(comparison.groups, 1) for run in group.runs.values()
    }
    metrics = list(dict.fromkeys(name for entry in comparison.entries for name in entry.metrics))
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(
        ["rank", "configuration", "run", "status", "seed", *comparison.keys, *metrics, "hours", "cause"]
    )
    ranked = [(run, "") for run in comparison.ranked]
    for rank, (entry, why) in enumerate([*ranked, *comparison.others], 1):
        number = place.get(id(entry))
        values = comparison.groups[number - 1].values if number else {}
        name = entry.name if entry.path is None else f"{entry.path.parent.name}/{entry.path.name}"
        writer.writerow(
            [rank if number else "", number or "", name, entry.status, entry.seed]
            + [shown(values[key]) if key in values else "" for key in comparison.keys]
            + [repr(entry.metrics[name]) if name in entry.metrics else "" for name in metrics]
            + ["" if entry.hours is None else f"{entry.hours:.6f}", why]
        )
    return content.getvalue()


def _rich(header: Sequence[str], rows: Rows) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for index, name in enumerate(header):
        column = [row[index] for row in rows]
        numbers = all(re.fullmatch(r"\[?[-+]?[\d., e+-]+( \w+|%)?\]?|–", cell) for cell in column)
        # what tells runs apart is never cut; long texts fold
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold", no_wrap=numbers)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _escaped(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(LATEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"
