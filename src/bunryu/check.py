"""``bunryu check``: what a run or a sweep would be, need and fail at, without training it."""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bunryu import checks, preflight, resident
from bunryu.composition import Plan, as_hydra_reads, composed, composing, plan, shipped_defaults
from bunryu.config import check_targets
from bunryu.errors import BunryuError, ConfigError
from bunryu.explanation import explain
from bunryu.inspection import EVERY, Job, Report, Settings, estimated, measured_kinds, survey, tell
from bunryu.interruption import stop_on_signals
from bunryu.masking import secrets_in
from bunryu.opening import Parser
from bunryu.preparation import recorded_of

SCRATCH = ".check-"


def main(arguments: Sequence[str]) -> int:
    """Run ``bunryu check``; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    fresh = "torch" not in sys.modules  # in a notebook the process has been there for long
    began = time.perf_counter() - (resident.age() if fresh else 0.0)
    report = Report()
    planned, jobs, settings = _composed(options, report)
    for job in jobs:
        for problem in preflight.file_problems(job.filled):
            report.add(job.number, problem)
    if report.problems:
        return report.code(planned.count)
    report.say(_title(planned))
    with stop_on_signals(), _quiet() as warned:
        return _look(planned, jobs, settings, report, began, warned)


def _composed(options: argparse.Namespace, report: Report) -> tuple[Plan, list[Job], Settings]:
    """The plan and its jobs; an override that cannot be is told and left out, so that all are."""
    given = list(options.overrides)
    while True:
        try:
            with composing() as loader:
                overrides = as_hydra_reads(given)
                if options.config_dir is not None:
                    overrides.insert(0, f"hydra.searchpath=['file://{options.config_dir.resolve()}']")
                planned = plan(loader, overrides)
                return planned, *_jobs(loader, planned, report)
        except (HydraException, OmegaConfBaseException, ValueError, ConfigError) as error:
            explained = error if isinstance(error, ConfigError) else explain(error)
            if explained is None:
                raise
            left = [override for override in given if _key_of(override) != explained.where.lstrip("~")]
            report.add(EVERY, explained)
            if len(left) == len(given):
                return Plan([], []), [], Settings(1, None)
            given = left


def _key_of(override: str) -> str:
    """What an override sets, or, where it is no override at all, itself."""
    return override.partition("=")[0].lstrip("+~")


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


def _title(planned: Plan) -> str:
    over = f" over {', '.join(planned.swept)}" if planned.swept else ""
    if planned.trials is not None:
        job = " ".join(planned.jobs[0])
        return f"a search of {planned.trials} trials{over}; each taken to be as this one: {job}"
    return f"a sweep of {planned.count} jobs{over}" if planned.swept else "one run"


def _jobs(loader: Any, planned: Plan, report: Report) -> tuple[list[Job], Settings]:
    """Each job composed and looked at as ``bunryu train`` does first; what is refused goes to the report."""
    jobs: list[Job] = []
    settings = Settings(1, None)
    for number, overrides in enumerate(planned.jobs):
        try:
            config, node = composed(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            report.add(number, explain(error))
            continue
        report.secrets |= secrets_in(OmegaConf.to_yaml(config))
        shipped = shipped_defaults(loader, node.runtime.choices)
        if problems := _refusals(config, shipped):
            for problem in problems:
                report.add(number, problem)
        else:
            own = [item for item in overrides if item.lstrip("+").partition("=")[0] in planned.swept]
            report.add(number, preflight.refused(lambda: jobs.append(_job(number, own, config))))  # noqa: B023
        settings = _settings(config)
    return jobs, settings


def _refusals(config: DictConfig, shipped: DictConfig) -> list[BunryuError]:
    """All that the first look refuses: what it names is put back to what ships, and it looks again."""
    config, found = copy.deepcopy(config), list[BunryuError]()
    while True:
        problem = preflight.refused(lambda: checks.check_values(config))
        problem = problem or preflight.refused(lambda: checks.check_shape(config, shipped))
        if problem is None:
            return found
        found.append(problem)
        key = problem.where.lstrip("~")
        if not key or any(problem.where == earlier.where for earlier in found[:-1]):
            return found
        OmegaConf.set_struct(config, False)
        node, _, name = key.rpartition(".")
        if key in checks.keys_of(shipped):
            default = OmegaConf.select(shipped, key, throw_on_missing=False)
            OmegaConf.update(config, key, default, merge=False, force_add=True)
        else:
            (OmegaConf.select(config, node) if node else config).pop(name, None)


def _settings(config: DictConfig) -> Settings:
    n_jobs, budget = config.get("n_jobs"), config.get("budget_hours")
    return Settings(n_jobs if isinstance(n_jobs, int) else 1, None if budget is None else float(budget))


def _job(number: int, overrides: list[str], config: DictConfig) -> Job:
    if config.seed is None:
        config.seed = secrets.randbelow(2**32)
    recorded = recorded_of(config)
    filled = checks.container(config)
    if "force_download" in filled["corpus"]:  # train fetches it again, once; a check does not
        recorded["corpus"]["force_download"] = filled["corpus"]["force_download"] = False
    return Job(number, overrides, recorded, filled)


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
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


def _look(
    planned: Plan, jobs: list[Job], settings: Settings, report: Report, began: float, warned: list[str]
) -> int:
    """The part that needs torch: targets, machine, corpus, lengths; then the clock."""
    startup = 0.0
    for job in jobs:
        refused = preflight.refused(job.settle)
        report.add(job.number, refused)
        report.add(job.number, preflight.refused(lambda: check_targets(job.filled)))  # noqa: B023
        for problem in preflight.machine_problems(job.filled) if refused is None else ():
            report.add(job.number, problem)
        startup = startup or time.perf_counter() - began  # what every process pays before it has a job
    import torch

    from bunryu.cache import cache_folder, remove_abandoned

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
