"""The part of a check that needs torch: targets, machine, corpus and token lengths, then timed steps."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunryu.config.instantiate import check_targets
from bunryu.errors import BunryuError
from bunryu.preflight import problems
from bunryu.preflight.jobs import Job
from bunryu.preflight.report import Report
from bunryu.sweeps.plan import Plan, checked_part
from bunryu.system.files import remove_abandoned
from bunryu.system.locations import cache_folder
from bunryu.training import early_checks, inputs

if TYPE_CHECKING:
    from bunryu.preflight.estimate import Measured

SCRATCH = ".check-"


@contextlib.contextmanager
def collecting_warnings() -> Iterator[list[str]]:
    """Keep the log lines of a run off the console while inside; its warnings are collected."""
    warned: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() not in warned:
                warned.append(record.getMessage())

    logger, handler = logging.getLogger("bunryu"), Collecting(logging.WARNING)
    propagates, disabled = logger.propagate, logging.root.manager.disable
    logger.addHandler(handler)
    logger.propagate = False
    logging.disable(logging.INFO)  # Lightning's, too, which sets its level when it is imported
    try:
        yield warned
    finally:
        logging.disable(disabled)
        logger.propagate = propagates
        logger.removeHandler(handler)


def dry_run(plan: Plan, jobs: Sequence[Job], report: Report, began: float, warned: list[str]) -> None:
    """Report what this machine would refuse of the jobs, or else what they would take.

    The process ``began`` then, as ``time.perf_counter`` counts; ``warned`` is what was warned of so far.
    """
    from bunryu.preflight.costs import report_costs

    startup = _settle(jobs, report, began)
    cache = cache_folder(jobs[0].filled["cache_dir"])
    cache.mkdir(parents=True, exist_ok=True)
    remove_abandoned(cache, SCRATCH)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=cache) as folder:
        stand_ins = _survey(jobs, report, Path(folder))
        measured = {} if report.problems else _measured(plan, jobs, report, Path(folder), stand_ins)
    if report.problems:
        return
    news = [warning for warning in warned if folder not in warning and f"  - {warning}" not in report.said]
    report.say(*([""] if news else []), *(f"  - {warning}" for warning in news))
    report_costs(plan, jobs, report, startup, measured)


def _settle(jobs: Sequence[Job], report: Report, began: float) -> float:
    """Make ``auto`` concrete and report what is refused; the seconds that each process takes until then."""
    startup = 0.0
    found: dict[str, list[BunryuError | None]] = {}
    for job in jobs:
        unavailable = early_checks.refused(job.settle)
        key = checked_part(job.recorded)
        if unavailable is not None:
            found.setdefault(key, [early_checks.refused(lambda: check_targets(job.recorded))])  # noqa: B023
        elif key not in found:
            found[key] = list(early_checks.problems_here(job.recorded))
        for problem in (unavailable, *found[key]):
            report.add(job.number, problem)
        startup = startup or time.perf_counter() - began
    return startup


def _keys(config: Mapping[str, Any]) -> tuple[str, str]:
    """What stands for the corpus of a config, and for its model."""
    model = {key: value for key, value in config["model"].items() if key != "lr"}
    return json.dumps((config["corpus"], config["limit_rows"]), default=str), json.dumps(model, default=str)


def _survey(jobs: Sequence[Job], report: Report, scratch: Path) -> dict[str, dict[str, Any]]:
    """Print each corpus and its lengths; returns stand-ins for models whose weights are not here."""
    from bunryu.preflight.survey import aligned, rows_and_labels, token_lengths

    corpora: dict[str, Any] = {}
    stand_ins: dict[str, dict[str, Any]] = {}
    lengths = sorted({int(job.filled["max_seq_length"]) for job in jobs})
    distinct: dict[tuple[str, str], Job] = {}
    for job in jobs:
        distinct.setdefault(_keys(job.filled), job)
    for (name, model), job in distinct.items():
        config = job.filled
        try:
            if name not in corpora:
                corpora[name] = inputs.corpus_to_train_on(config)
                report.say("", f"corpus {config['corpus']['name']}")
                report.say(*(f"  {line}" for line in aligned(rows_and_labels(corpora[name]))))
                report.say(*(f"  - {flaw}" for flaw in corpora[name].warnings))
            problems.check_weights(config["model"])
            _, tokenizer = inputs.tokenizer_of(config, corpora[name])
            splits = inputs.encode_splits(config, corpora[name], tokenizer)
            if not problems.is_here(config["model"]):
                folder = scratch / f"model-{len(stand_ins)}"
                stand_ins[model] = problems.stand_in(config["model"], tokenizer, folder)
        except BunryuError as error:
            report.add(job.number, error)
            continue
        report.say("", f"tokens of {config['model']['name']} ({len(tokenizer):,} in its vocabulary)")
        table = token_lengths(splits, tokenizer.unk_token_id, lengths)
        report.say(*(f"  {line}" for line in aligned(table)))
    return stand_ins


def _measured(
    plan: Plan, jobs: Sequence[Job], report: Report, scratch: Path, stand_ins: Mapping[str, Any]
) -> dict[str, Measured]:
    """What jobs have in common, by its key; each kind is timed once, the smallest first for its own peak."""
    from bunryu.preflight import timing
    from bunryu.preflight.estimate import shared_by

    measured: dict[str, Measured] = {}
    with timing.share_of_threads(plan.master.n_jobs):
        for job in sorted(jobs, key=lambda job: job.filled["max_seq_length"] * job.filled["batch_size"]):
            key = shared_by(job.filled)
            model = stand_ins.get(_keys(job.filled)[1], job.recorded["model"])
            try:
                if key not in measured:
                    with tempfile.TemporaryDirectory(dir=scratch) as folder:
                        measured[key] = timing.measure({**job.recorded, "model": model}, Path(folder))
            except BunryuError as error:
                report.add(job.number, error)
    return measured
