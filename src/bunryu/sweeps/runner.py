"""A sweep: which jobs there are, which of them are still to do, and a table of how they ended."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

from bunryu.config.record import check_variables
from bunryu.errors import BusyError, TrainingError
from bunryu.keys import is_below, leaves
from bunryu.sweeps.ledger import IRRELEVANT, JobState, Ledger
from bunryu.system.secrets import asked

log = logging.getLogger(__name__)

DONE = ("finished", "pruned")
POLL = 1.0  # seconds between two looks at the jobs of other processes

# Brings jobs to their ends and yields them as they end; takes the next one when that can begin.
Launch = Callable[[Ledger, Iterator[str]], Iterator[str]]


class JobSource(Protocol):
    """The jobs of a sweep, however they are chosen."""

    @property
    def total(self) -> int:
        """How many there will be."""

    def identities(self) -> Sequence[str]:
        """All jobs so far."""

    def todo(self) -> Iterator[str]:
        """Jobs that may begin now and that no process has; each is taken when there is room for it."""

    def ended(self, job: JobState) -> None:
        """Called when a job that was begun here has ended."""


@dataclass(frozen=True)
class GridJobs:
    """The jobs of a grid, which are all known from the beginning."""

    ledger: Ledger  # has them all
    names: Sequence[str]  # their identities
    retry: bool  # whether those that failed before are tried again

    @property
    def total(self) -> int:
        return len(self.names)

    def identities(self) -> Sequence[str]:
        return self.names

    @cached_property
    def _failed_before(self) -> dict[str, int]:
        """Attempts at the jobs that had failed when this start began; what fails later is not tried again."""
        jobs = map(self.ledger.job, self.names) if self.retry else []
        return {job.identity: job.attempt for job in jobs if job.status == "failed"}

    def todo(self) -> Iterator[str]:
        again = self._failed_before
        for name in self.names:
            job = self.ledger.job(name)
            if job.unended or (job.status == "failed" and again.get(name) == job.attempt):
                yield name

    def ended(self, job: JobState) -> None:
        pass


def name_of(config: Mapping[str, Any], swept: Sequence[str]) -> str:
    """A sweep's name, from the keys it sweeps over and a hash of all else in its config."""
    rest = {key: value for key, value in leaves(config) if not is_below(key, (*swept, *IRRELEVANT))}
    digest = hashlib.sha256(json.dumps([rest, sorted(swept)], sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*(key.rpartition(".")[2].replace("/", "_") for key in sorted(swept)), digest])[-80:]


def archive(ledger: Ledger) -> None:
    """Add the time of its last change to a sweep's name, to free it; raises BusyError if a job is running."""
    path = ledger.path
    if any(job.status == "running" for job in ledger.jobs()):
        raise BusyError("jobs of this sweep are running", where=str(path), fix="wait until they end")
    changed = datetime.fromtimestamp(path.stat().st_mtime)
    os.rename(path, path.with_name(f"{path.name}.{changed:%Y-%m-%d_%H-%M-%S.%f}"))


def run(ledger: Ledger, source: JobSource, launch: Launch, *, stop_on_failure: bool) -> None:
    """Bring the jobs of a sweep to their ends, each by one process only; those of others are waited for.

    With ``stop_on_failure`` none begins once one has failed. Raises TrainingError if any did not finish.
    """
    for job in map(ledger.job, source.identities()):  # records of an earlier start: they may be anybody's
        check_variables(job.config, str(ledger.path), asked, "fresh=true")
    log.info("sweep %s: %s", ledger.path, _counts(map(ledger.job, source.identities())))
    done = {name for name in source.identities() if ledger.job(name).status in DONE}
    progress = _Progress(ledger, source, stop_on_failure, done)
    while True:
        todo = progress.untried(source.todo())
        if (first := next(todo, None)) is not None:
            for identity in launch(ledger, chain([first], todo)):
                progress.ended(ledger.job(identity))
        elif any(ledger.job(identity).status == "running" for identity in source.identities()):
            time.sleep(POLL)
        else:
            break
    _close(ledger, source.identities())


def _close(ledger: Ledger, identities: Sequence[str]) -> None:
    """Log the closing table; raises TrainingError if any job did not finish."""
    jobs = sorted((ledger.job(identity) for identity in identities), key=lambda job: job.number)
    log.info("%s\n%s", _counts(jobs), "\n".join(table(jobs, ledger.facts)))
    log.info("next\n  bunryu report %s", shlex.quote(str(ledger.path)))
    if unfinished := sum(job.status not in DONE for job in jobs):
        what = f"{unfinished} of {len(jobs)} jobs did not finish"
        fix = "the same command again tries what is missing"
        raise TrainingError(what, where=str(ledger.path / "jobs"), fix=fix)


def table(jobs: Sequence[JobState], facts: Mapping[str, Any]) -> list[str]:
    """A line for each job: number, status, its swept values, and its metric or the cause of its failure."""
    metric = str(facts["monitor"]).split()[1]
    rows = []
    for job in jobs:
        swept = (item for item in job.overrides if item.lstrip("+").partition("=")[0] in facts["swept"])
        end = f"{metric} {job.metrics[metric]:.4f}" if metric in job.metrics else job.cause or ""
        rows.append((f"  {job.number:>3}  {job.status:<11}  ", " ".join(swept), end))
    widest = max((len(swept) for _, swept, _ in rows), default=0)
    return [f"{start}{swept:<{widest}}  {end}" for start, swept, end in rows]


@dataclass
class _Progress:
    """Which jobs have begun and ended; logs a line for each that ends."""

    ledger: Ledger
    source: JobSource
    stop_on_failure: bool
    done: set[str]
    tried: set[str] = field(default_factory=set)
    failed: bool = False

    def untried(self, todo: Iterator[str]) -> Iterator[str]:
        """The jobs that were not begun here yet; none once one has failed, if that is to stop the others."""
        while not (self.failed and self.stop_on_failure) and (identity := next(todo, None)) is not None:
            if identity not in self.tried:
                self.tried.add(identity)
                yield identity

    def ended(self, job: JobState) -> None:
        if job.status == "running":  # another process was quicker: it is waited for
            self.tried.discard(job.identity)
            return
        self.source.ended(job)
        if job.status in DONE:
            self.done.add(job.identity)
        line = table([job], self.ledger.facts)[0][2:]
        log.info("[%d/%d]%s", len(self.done), self.source.total, line)
        if job.status not in DONE:
            self.failed = True
            log.info("  its output: %s", self.ledger.log_of(job.identity))


def _counts(jobs: Iterable[JobState]) -> str:
    statuses = [job.status for job in jobs]
    parts = [f"{statuses.count(status)} {status}" for status in sorted(set(statuses))]
    return ", ".join([f"{len(statuses)} jobs", *parts])
