"""A sweep: which jobs there are, which of them are still to do, and a table of how they ended."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

from bunryu.errors import BusyError, TrainingError
from bunryu.keys import is_below, leaves
from bunryu.sweeps.ledger import IRRELEVANT, JobState, Ledger

log = logging.getLogger(__name__)

DONE = ("finished", "pruned")
POLL = 1.0  # seconds between two looks at the jobs of others

# Brings jobs to their ends and yields them as they end; asks for the next one when that can begin.
Launch = Callable[[Ledger, Iterator[str]], Iterator[str]]


class JobSource(Protocol):
    """The jobs of a sweep, however they are chosen."""

    def todo(self) -> Iterator[str]:
        """Jobs that may begin now and that no process has; each is asked for when there is room for it."""

    def ended(self, job: JobState) -> None:
        """A job that was begun here has ended."""

    def identities(self) -> list[str]:
        """All jobs so far."""

    @property
    def total(self) -> int:
        """How many there will be."""


@dataclass(frozen=True)
class GridJobs:
    """Jobs that are known from the beginning, as a grid's are.

    Args:
        ledger: has them all.
        names: their identities.
        retry: whether those that failed before are tried again.
    """

    ledger: Ledger
    names: Sequence[str]
    retry: bool

    @cached_property
    def _failed_before(self) -> dict[str, int]:
        """Attempts at the jobs that had failed when this start began: others' failures since then stand."""
        jobs = map(self.ledger.job, self.names) if self.retry else []
        return {job.identity: job.attempt for job in jobs if job.status == "failed"}

    def todo(self) -> Iterator[str]:
        """What is missing, half done or, if it may be tried again, failed before this start."""
        again = self._failed_before
        for name in self.names:
            job = self.ledger.job(name)
            if job.status in ("waiting", "dead", "interrupted") or (
                job.status == "failed" and again.get(name) == job.attempt
            ):
                yield name

    def ended(self, job: JobState) -> None:
        """Nothing follows from it."""

    def identities(self) -> list[str]:
        """All of them."""
        return list(self.names)

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.names)


def name_of(config: Mapping[str, Any], swept: Sequence[str]) -> str:
    """A sweep's name, from the keys it sweeps over and a hash of all else in its config.

    Args:
        config: of a run without the swept keys' values.
        swept: their names.
    """
    rest = {key: value for key, value in leaves(config) if not is_below(key, (*swept, *IRRELEVANT))}
    digest = hashlib.sha256(json.dumps([rest, sorted(swept)], sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*(key.rpartition(".")[2].replace("/", "_") for key in sorted(swept)), digest])[-80:]


def put_aside(ledger: Ledger) -> None:
    """Rename a sweep's folder, for another one to take its name.

    Raises:
        BusyError: if one of its jobs is running.
    """
    path = ledger.path
    if any(job.status == "running" for job in ledger.jobs()):
        raise BusyError("jobs of this sweep are running", where=str(path), fix="wait until they end")
    begun = datetime.fromtimestamp(path.stat().st_mtime)
    os.rename(path, path.with_name(f"{path.name}.{begun:%Y-%m-%d_%H-%M-%S.%f}"))


def run(ledger: Ledger, work: JobSource, launch: Launch, *, stop_on_failure: bool) -> None:
    """Bring the jobs of a sweep to their ends, each by one process only; those of others are waited for.

    Args:
        ledger: the sweep's.
        work: its jobs.
        launch: how they begin.
        stop_on_failure: whether no further job begins once one has failed.

    Raises:
        TrainingError: if any did not finish.
    """
    log.info("sweep %s: %s", ledger.path, _counts(map(ledger.job, work.identities())))
    progress = _Progress(ledger, work, stop_on_failure)
    while True:
        todo = progress.begun(work.todo())
        if (first := next(todo, None)) is not None:
            for identity in launch(ledger, chain([first], todo)):
                progress.ended(ledger.job(identity))
        elif any(ledger.job(identity).status == "running" for identity in work.identities()):
            time.sleep(POLL)
        else:
            break
    conclude(ledger, work.identities())


def conclude(ledger: Ledger, identities: Sequence[str]) -> None:
    """Log the closing table.

    Raises:
        TrainingError: if any job did not finish.
    """
    jobs = sorted((ledger.job(identity) for identity in identities), key=lambda job: job.number)
    log.info("%s\n%s", _counts(jobs), "\n".join(table(jobs, ledger.facts)))
    log.info("next\n  bunryu report %s", shlex.quote(str(ledger.path)))
    unfinished = [job for job in jobs if job.status not in DONE]
    if unfinished:
        raise TrainingError(
            f"{len(unfinished)} of {len(jobs)} jobs did not finish",
            where=str(ledger.path / "jobs"),
            fix="the same command again tries what is missing",
        )


def table(jobs: Sequence[JobState], facts: Mapping[str, Any]) -> list[str]:
    """A line a job: number, status, what is its own, and its metric or the cause of its failure."""
    metric = str(facts["monitor"]).split()[1]
    widest = max((len(_own(job, facts["swept"])) for job in jobs), default=0)
    return [
        f"  {job.number:>3}  {job.status:<11}  {_own(job, facts['swept']):<{widest}}  {_outcome(job, metric)}"
        for job in jobs
    ]


class _Progress:
    """What has begun and ended by now; says how each job ended."""

    def __init__(self, ledger: Ledger, work: JobSource, stop_on_failure: bool) -> None:
        self._ledger = ledger
        self._work = work
        self._stop_on_failure = stop_on_failure
        self._facts = ledger.facts
        self._tried: set[str] = set()
        self._done = {name for name in work.identities() if ledger.job(name).status in DONE}
        self._failed = False

    def begun(self, todo: Iterator[str]) -> Iterator[str]:
        """The jobs that are left, none a second time."""
        while not (self._failed and self._stop_on_failure) and (identity := next(todo, None)) is not None:
            if identity not in self._tried:
                self._tried.add(identity)
                yield identity

    def ended(self, job: JobState) -> None:
        if job.status == "running":  # another process was quicker: it is waited for
            self._tried.discard(job.identity)
            return
        self._work.ended(job)
        if job.status in DONE:
            self._done.add(job.identity)
        log.info("[%d/%d]%s", len(self._done), self._work.total, table([job], self._facts)[0][2:])
        if job.status not in DONE:
            self._failed = True
            log.info("  its output: %s", self._ledger.log_of(job.identity))


def _counts(jobs: Iterable[JobState]) -> str:
    statuses = [job.status for job in jobs]
    parts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses))]
    return ", ".join([f"{len(statuses)} jobs", *parts])


def _own(job: JobState, swept: Sequence[str]) -> str:
    """Its overrides of the swept keys."""
    return " ".join(item for item in job.overrides if item.lstrip("+").partition("=")[0] in swept)


def _outcome(job: JobState, metric: str) -> str:
    if metric in job.metrics:
        return f"{metric} {job.metrics[metric]:.4f}"
    return job.cause or ""
