"""What can only be told with torch: targets, machine, corpus and token lengths, then timed steps."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunryu.errors import BunryuError
from bunryu.preflight import problems as preflight
from bunryu.preflight.costs import tell
from bunryu.preflight.jobs import Job, Settings
from bunryu.preflight.report import Report
from bunryu.sweeps.plan import CommandLine
from bunryu.training import early_checks, inputs

if TYPE_CHECKING:
    from bunryu.preflight.estimate import Estimate, Measured


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


def dry_run(
    planned: CommandLine, jobs: list[Job], settings: Settings, report: Report, began: float, warned: list[str]
) -> int:
    """The part that needs torch: targets, machine, corpus, lengths; then the clock."""
    startup = 0.0
    for job in jobs:
        refused = early_checks.refused(job.settle)
        report.add(job.number, refused)
        for problem in early_checks.problems_here(job.recorded) if refused is None else ():
            report.add(job.number, problem)
        startup = startup or time.perf_counter() - began  # what every process pays before it has a job
    import torch

    from bunryu.system.files import remove_abandoned
    from bunryu.system.locations import cache_folder

    cache = cache_folder(jobs[0].filled["cache_dir"])
    cache.mkdir(parents=True, exist_ok=True)
    remove_abandoned(cache, SCRATCH)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=cache) as folder:
        stand_ins = survey(jobs, report, Path(folder))
        if report.problems:
            return report.code(planned.count)
        if settings.n_jobs > 1:
            torch.set_num_threads(max(1, threads // settings.n_jobs))
        try:
            measured = measured_kinds(jobs, report, Path(folder), stand_ins)
        finally:
            torch.set_num_threads(threads)
    if report.problems:
        return report.code(planned.count)
    news = [warning for warning in warned if folder not in warning and f"  - {warning}" not in report.said]
    report.say(*([""] if news else []), *(f"  - {warning}" for warning in news))
    estimates = estimated(jobs, measured)
    tell(planned, jobs, settings, report, startup, list(measured.values()), estimates)
    return report.code(planned.count)


def _key(facts: Any) -> str:
    return json.dumps(facts, default=str)


def survey(jobs: list[Job], report: Report, scratch: Path) -> dict[str, dict[str, Any]]:
    """Print each corpus and its lengths; returns stand-ins for models whose weights are not here."""
    from bunryu.preflight.survey import aligned, rows_and_labels, token_lengths

    corpora: dict[str, Any] = {}
    told: set[tuple[str, str]] = set()
    stand_ins: dict[str, dict[str, Any]] = {}
    for job in jobs:
        config = job.filled
        name = _key((config["corpus"], config["limit_rows"]))
        model = _key({key: value for key, value in config["model"].items() if key != "lr"})
        if (name, model) in told:
            continue
        told.add((name, model))
        try:
            if name not in corpora:
                corpora[name] = inputs.read_corpus(config)
                if config["strict_data"]:
                    corpora[name].refuse_flaws()
                report.say("", f"corpus {config['corpus']['name']}")
                report.say(*(f"  {line}" for line in aligned(rows_and_labels(corpora[name]))))
                report.say(*(f"  - {flaw}" for flaw in corpora[name].warnings))
            if missing := preflight.weights_problem(config["model"]):
                report.add(job.number, missing)
                continue
            _, tokenizer = inputs.tokenizer_of(config, corpora[name])
            splits = inputs.encode_splits(config, corpora[name], tokenizer)
            if not preflight.is_here(config["model"]):
                stand_ins[model] = preflight.stand_in(
                    config["model"], tokenizer, scratch / f"model-{len(told)}"
                )
        except BunryuError as error:
            report.add(job.number, error)
            continue
        lengths = sorted({other.length() for other in jobs})
        report.say("", f"tokens of {config['model']['name']} ({len(tokenizer):,} in its vocabulary)")
        table = token_lengths(splits, tokenizer.unk_token_id, lengths)
        report.say(*(f"  {line}" for line in aligned(table)))
    return stand_ins


def measured_kinds(
    jobs: list[Job], report: Report, scratch: Path, stand_ins: Mapping[str, dict[str, Any]]
) -> dict[str, Measured]:
    """What the jobs have in common, each kind timed once: the smallest first, for the sake of peaks."""
    from bunryu.preflight import estimate, timing

    measured: dict[str, Measured] = {}
    for job in sorted(jobs, key=lambda job: job.length() * int(job.filled["batch_size"])):
        key = _key(estimate.shared_by(job.filled))
        if key in measured:
            continue
        model = _key({name: value for name, value in job.filled["model"].items() if name != "lr"})
        config = {**job.recorded, "model": stand_ins.get(model, job.recorded["model"])}
        folder = scratch / f"kind-{len(measured)}"
        try:
            measured[key] = timing.measure(config, folder)
        except BunryuError as error:
            report.add(job.number, error)
    return measured


def estimated(jobs: Sequence[Job], measured: Mapping[str, Measured]) -> list[Estimate]:
    """What each job takes, from what was measured of its kind."""
    from bunryu.preflight.estimate import estimate, shared_by

    return [estimate(job.filled, measured[_key(shared_by(job.filled))]) for job in jobs]
