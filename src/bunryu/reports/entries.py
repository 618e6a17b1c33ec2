"""Runs and sweeps' jobs as they stand on the disk, whatever state they are in."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from bunryu.errors import BunryuError, ConfigError
from bunryu.runs.records import seconds
from bunryu.runs.run import Run
from bunryu.sweeps.attempts import read_record
from bunryu.sweeps.ledger import JobState, Ledger
from bunryu.system.records import read_table


@dataclass(frozen=True)
class RunSummary:
    """One run, or one job of a sweep that may not have come to be a run."""

    name: str  # the run directory's, or the job's
    status: str  # finished, running, failed, interrupted, pruned, waiting, dead or damaged
    cause: str | None = None  # why it did not finish, as far as that is known
    path: Path | None = None  # the run directory, if there is one
    config: Mapping[str, Any] = field(default_factory=dict)  # empty if it cannot be read
    overrides: Sequence[str] = ()  # the command line's, in Hydra's grammar
    corpus: Any = None  # what was found in its files: fingerprint, rows and labels of each split
    metrics: Mapping[str, float] = field(default_factory=dict)  # the final ones
    hours: float | None = None  # what it cost so far; None if nobody wrote down when it ended

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """(step, value) of what metrics.csv holds of a metric; what cannot be read is left out."""
        points = []
        with suppress(BunryuError):
            for line in read_table(self.path / "metrics.csv").splitlines() if self.path else ():
                if f",{metric}," in line:  # most lines are of other metrics
                    with suppress(ValueError, IndexError):  # a line that is being written
                        points.append((float(line.split(",")[1]), float(line.split(",")[3])))
        return [(step, value) for step, value in points if math.isfinite(value)]


def collect(paths: Sequence[Path]) -> list[RunSummary]:
    """Every job and run that the paths name or hold, each once; ConfigError for a path with none."""
    entries: dict[Path, RunSummary] = {}
    for path in paths:
        sweeps, runs = _found_in(path.expanduser())
        if not sweeps and not runs:
            what = "neither a run nor a sweep, and none is in it" if path.exists() else "no such directory"
            fix = "a run directory, a sweep's folder, or a folder of them such as outputs"
            raise ConfigError(what, where=str(path), fix=fix)
        for place, entry in chain.from_iterable(map(_jobs, sweeps)):
            entries.setdefault(place, entry)
        for run in runs:
            entries.setdefault(run.resolve(), _of_run(run))
    return list(entries.values())


def _found_in(path: Path) -> tuple[list[Path], list[Path]]:
    """Sweeps and runs: the path itself, or else those up to three folders below it."""
    if (path / "sweep.json").is_file():
        return [path], []
    if (path / "manifest.json").is_file():
        return [], [path]
    sweeps, runs = (
        sorted(found.parent for level in ("*/", "*/*/", "*/*/*/") for found in path.glob(level + name))
        for name in ("sweep.json", "manifest.json")
    )
    return sweeps, runs


def _jobs(sweep: Path) -> Iterator[tuple[Path, RunSummary]]:
    """A sweep's jobs, each with the path it is known by."""
    for job in Ledger(sweep).jobs():
        yield (job.run or sweep / "jobs" / job.identity).resolve(), _of_job(job, sweep)


def _of_job(job: JobState, sweep: Path) -> RunSummary:
    name = f"{sweep.name}/{f'job {job.number}' if job.config else job.identity}"
    summary = RunSummary(
        name, job.status, job.cause, config=job.config, overrides=job.overrides,
        metrics=_numbers(job.metrics), hours=_hours_of_attempts(sweep, job.identity),
    )  # fmt: skip
    if job.run is None or not os.path.isdir(job.run):
        return summary
    run = _of_run(job.run)
    if run.status == "damaged":
        return replace(run, overrides=job.overrides, config=job.config, hours=summary.hours)
    status = run.status if job.status == "finished" else job.status
    hours = run.hours if summary.hours is None else summary.hours
    return replace(run, status=status, cause=job.cause or run.cause, hours=hours)


def _hours_of_attempts(sweep: Path, identity: str) -> float | None:
    """Hours of all attempts at a job that came to an end; None if none did."""
    spent = 0.0
    for record in (sweep / "jobs").glob(f"{identity}.*.json"):
        with suppress(BunryuError):
            spent += _hours(read_record(record)) or 0
    return spent or None


def _of_run(path: Path) -> RunSummary:
    """A run as it stands; damage is its status, not an error."""
    run, summary = Run(path), RunSummary(path.name, "damaged", path=path)
    try:
        found = run.manifest
        status, parts = found["status"], (found["config"], found["overrides"], found.get("corpus"))
        summary = RunSummary(path.name, status, found["exit_reason"], path, *parts, hours=_hours(found))
        return replace(summary, metrics=_numbers(run.results))
    except BunryuError as error:
        return replace(summary, status="damaged", cause=error.what)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _hours(record: Mapping[str, Any]) -> float | None:
    """From the start to the end of a run or an attempt; None if it has not ended."""
    start, end = record.get("start"), record.get("end")
    return None if start is None or end is None else (seconds(end) - seconds(start)) / 3600
