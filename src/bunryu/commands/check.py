"""``bunryu check``: what a run or a sweep would be, need and fail at, without training it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bunryu.commands.arguments import Parser
from bunryu.preflight import problems as preflight
from bunryu.preflight.dry_run import collecting_warnings, dry_run
from bunryu.preflight.jobs import composed_jobs
from bunryu.preflight.report import Report
from bunryu.sweeps.plan import CommandLine
from bunryu.system import machine
from bunryu.system.signals import stop_on_signals


def main(arguments: Sequence[str]) -> int:
    """Run ``bunryu check``; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    fresh = "torch" not in sys.modules  # in a notebook the process has been there for long
    began = time.perf_counter() - (machine.process_age() if fresh else 0.0)
    report = Report()
    planned, jobs, settings = composed_jobs(options, report)
    for job in jobs:
        for problem in preflight.file_problems(job.filled):
            report.add(job.number, problem)
    if report.problems:
        return report.code(planned.count)
    report.say(_title(planned))
    with stop_on_signals(), collecting_warnings() as warned:
        return dry_run(planned, jobs, settings, report, began, warned)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "bunryu check",
        description="What a run or a sweep would be, need and fail at, without training it: corpus, lengths "
        "in tokens, steps, estimated time, memory and disk. It composes as bunryu train does, reads the "
        "corpus, and times a few steps of the model; of all that, only the encoding stays, in the cache. "
        "Exit code 0 if nothing stands in the way, 2 otherwise.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="override",
        help="key=value, group=option; key=a,b or a sweep=… is a sweep, as in bunryu train",
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="taken and not needed")
    parser.add_argument(
        "--config-dir", "-cd", type=Path, metavar="FOLDER", help="of config options of your own"
    )
    return parser


def _title(planned: CommandLine) -> str:
    over = f" over {', '.join(planned.swept)}" if planned.swept else ""
    if planned.trials is not None:
        job = " ".join(planned.jobs[0])
        return f"a search of {planned.trials} trials{over}; each taken to be as this one: {job}"
    return f"a sweep of {planned.count} jobs{over}" if planned.swept else "one run"
