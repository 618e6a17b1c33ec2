"""``bunryu check``: what a run or a sweep would take and fail at, without training it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bunryu.commands.arguments import Parser
from bunryu.preflight import problems
from bunryu.preflight.dry_run import collecting_warnings, dry_run
from bunryu.preflight.jobs import composed_jobs
from bunryu.preflight.report import Report
from bunryu.sweeps.plan import Plan
from bunryu.system import machine
from bunryu.system.signals import stop_on_signals


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    fresh = "torch" not in sys.modules  # in a notebook the process has been there for long
    began = time.perf_counter() - (machine.process_age() if fresh else 0.0)
    report = Report()
    if (found := composed_jobs(options, report)) is None:
        return report.code(0)
    plan, jobs = found
    for job in jobs:
        for problem in problems.file_problems(job.filled):
            report.add(job.number, problem)
    if not report.problems:
        report.say(_title(plan))
        with stop_on_signals(), collecting_warnings() as warned:
            dry_run(plan, jobs, report, began, warned)
    return report.code(plan.count)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "bunryu check",
        description="What a run or a sweep would be, need and fail at, without training it: corpus, lengths "
        "in tokens, steps, estimated time, memory and disk. It composes as bunryu train does, reads the "
        "corpus, and times a few steps of the model; of all that, only the encoding stays, in the cache. "
        "Exit code 0 if nothing stands in the way, 2 otherwise.",
    )
    help_ = "key=value, group=option; key=a,b or a sweep=… is a sweep, as in bunryu train"
    parser.add_argument("overrides", nargs="*", metavar="override", help=help_)
    parser.add_argument("-m", "--multirun", action="store_true", help="taken and not needed")
    own = "of config options of your own"
    parser.add_argument("--config-dir", "-cd", type=Path, metavar="FOLDER", help=own)
    return parser


def _title(plan: Plan) -> str:
    over = f" over {', '.join(plan.grid.swept)}" if plan.grid.swept else ""
    if plan.trials is not None:
        job = " ".join(plan.costliest)
        return f"a search of {plan.trials} trials{over}; each taken to be as this one: {job}"
    return f"a sweep of {plan.count} jobs{over}" if plan.grid.swept else "one run"
