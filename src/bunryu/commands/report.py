"""``bunryu report``: runs and sweeps compared: the best configuration, how sure that is, what mattered."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bunryu.commands.arguments import Parser
from bunryu.errors import ConfigError
from bunryu.reports.entries import collect
from bunryu.system.files import write_atomically

if TYPE_CHECKING:
    from bunryu.reports.findings import Findings


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    entries = collect(options.paths)
    from rich.console import Console

    from bunryu.reports import tables
    from bunryu.reports.comparison import compare
    from bunryu.reports.findings import find

    findings = find(compare(entries, options.metric))
    tables.show(findings, Console(highlight=False))
    if options.output is not None:
        names = [path.resolve().name for path in options.paths]
        _write(findings, options.output, ", ".join(names[:3]) + (" …" if len(names) > 3 else ""))
    return 0


def _write(findings: Findings, folder: Path, title: str) -> None:
    from bunryu.reports import tables
    from bunryu.reports.page import page

    winner = _winner(findings)
    files = {
        "report.html": page(findings, title, winner),
        "report.md": tables.markdown(findings),
        "report.tex": tables.latex(findings),
        "report.csv": tables.comma_separated(findings),
        **({"experiment/winner.yaml": winner} if winner else {}),
    }
    there = [name for name in files if (folder / name).exists()]
    if there and not all((folder / name).exists() for name in files if name.startswith("report.")):
        what = f"{there[0]} would be written over, and is not of an earlier report"
        raise ConfigError(what, where=str(folder), fix="-o <a new folder>")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
    print(f"\npage    {folder / 'report.html'}\nfiles   {', '.join(list(files)[1:])}")
    if winner:
        print(f"winner  bunryu train --config-dir {shlex.quote(str(folder.absolute()))} experiment=winner")


def _winner(findings: Findings) -> str:
    """The best run of the best configuration as an experiment; empty if there is none."""
    from bunryu.reports.comparison import counted
    from bunryu.reports.winner import experiment_of

    groups, metric = findings.comparison.groups, findings.comparison.metric
    if not groups:
        return ""
    best, summary = next(iter(groups[0].runs.values())), findings.summaries[0]
    figures = f"{summary.mean:.6g} over {counted(summary.n, 'seed')}"
    return experiment_of(best, f"best of {len(groups)} by {metric}: {figures}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser("bunryu report", description=__doc__.replace("``", ""))
    paths = "a run, a sweep, or a folder that holds some"
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help=paths)
    metric = "what decides, such as val/accuracy (default: what the runs watched)"
    parser.add_argument("--metric", metavar="NAME", help=metric)
    written = "also write report.html, report.md, report.tex, report.csv and the winner, an experiment"
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=written)
    return parser
