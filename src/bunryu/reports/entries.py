"""Runs and sweeps' jobs as they stand on the disk, whatever state they are in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bunryu.errors import BunryuError, ConfigError
from bunryu.runs.run import Run
from bunryu.sweeps.ledger import JobState, Ledger

DEPTH = 4  # how far below a folder runs and sweeps are looked for
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class RunSummary:
    """One run, or one job of a sweep that may not have come to be a run.

    Args:
        name: the run directory's, or the job's.
        status: finished, running, failed, interrupted, pruned, waiting, dead or damaged.
        cause: why it did not finish, as far as that is known.
        path: the run directory, if there is one.
        config: plain values; empty if it cannot be read.
        overrides: the command line's, in Hydra's grammar.
        metrics: the final ones.
        hours: what it cost so far; None if nobody wrote down when it ended.
    """

    name: str
    status: str
    cause: str | None = None
    path: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    hours: float | None = None

    @property
    def seed(self) -> Any:
        """What it was seeded with."""
        return self.config.get("seed")

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """(step, value) of what metrics.csv holds of a metric; what cannot be read is left out."""
        if self.path is None:
            return []
        try:
            lines = (self.path / "metrics.csv").read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        points = []
        for line in lines:
            if f",{metric}," in line:  # most lines are of other metrics
                fields = line.split(",")
                try:
                    point = float(fields[1]), float(fields[3])
                except (ValueError, IndexError):  # a line that is being written
                    continue
                if math.isfinite(point[1]):
                    points.append(point)
        return points


def collect(paths: Sequence[Path]) -> list[RunSummary]:
    """Every job and run that the paths name or hold, each once; a job counts before its run.

    Raises:
        ConfigError: for a path that is no run and no sweep and holds none.
    """
    entries: dict[Path, RunSummary] = {}
    for path in paths:
        sweeps, runs = _found_in(path.expanduser())
        if not sweeps and not runs:
            raise ConfigError(
                "neither a run nor a sweep, and none is in it" if path.exists() else "no such directory",
                where=str(path),
                fix="a run directory, a sweep's folder, or a folder of them such as outputs",
            )
        for sweep in sweeps:
            for place, entry in _jobs(sweep):
                entries.setdefault(place, entry)
        for run in runs:
            entries.setdefault(run.resolve(), _of_run(run))
    return list(entries.values())


def _found_in(path: Path) -> tuple[list[Path], list[Path]]:
    """Sweeps and runs: the path itself, or else those below it."""
    if (path / "sweep.json").is_file():
        return [path], []
    if (path / "manifest.json").is_file():
        return [], [path]
    patterns = ["*/" * depth for depth in range(1, DEPTH)]
    return tuple(  # type: ignore[return-value]
        sorted(found.parent for pattern in patterns for found in path.glob(pattern + name))
        for name in ("sweep.json", "manifest.json")
    )


def _jobs(sweep: Path) -> Iterator[tuple[Path, RunSummary]]:
    """A sweep's jobs, each with the path it is known by."""
    ledger = Ledger(sweep)
    for record in sorted((sweep / "jobs").glob("*.json")):
        if "." in record.stem:  # an attempt
            continue
        try:
            job = ledger.job(record.stem)
        except (BunryuError, *DAMAGE) as error:
            damage = f"its record is damaged: {_told(error)}"
            yield record.resolve(), RunSummary(f"{sweep.name}/{record.stem}", "damaged", damage)
        else:
            place = record if job.run is None else job.run
            yield place.resolve(), _of_job(job, sweep)


def _of_job(job: JobState, sweep: Path) -> RunSummary:
    known = RunSummary(
        f"{sweep.name}/job {job.number}", job.status, job.cause, config=job.config, overrides=job.overrides,
        metrics=_numbers(job.metrics), hours=_attempted(sweep, job.identity),
    )  # fmt: skip
    if job.run is None or not job.run.is_dir():
        return known
    run = _of_run(job.run)
    if run.status == "damaged":
        return replace(run, overrides=job.overrides, config=job.config, hours=known.hours)
    status = run.status if job.status == "finished" else job.status
    hours = run.hours if known.hours is None else known.hours
    return replace(run, status=status, cause=job.cause or run.cause, hours=hours)


def _attempted(sweep: Path, identity: str) -> float | None:
    """Hours of all attempts at a job that came to an end."""
    spent = []
    for record in (sweep / "jobs").glob(f"{identity}.*.json"):
        try:
            facts = json.loads(record.read_text("utf-8"))
            spent.append(_hours(facts["start"], facts["end"]))
        except DAMAGE:
            continue
    known = [hours for hours in spent if hours is not None]
    return sum(known) if known else None


def _of_run(path: Path) -> RunSummary:
    """A run as it stands; what is damaged is said and not raised."""
    run, name = Run(path), path.name
    try:
        manifest = run.manifest
        config, status = manifest["config"], str(manifest["status"])
        _check(config, manifest["overrides"])
        hours = _hours(manifest["start"], manifest["end"])
    except DAMAGE as error:
        return RunSummary(name, "damaged", f"its manifest.json is damaged: {_told(error)}", path)
    entry = RunSummary(
        name, status, manifest.get("exit_reason"), path, config, manifest["overrides"], hours=hours
    )
    try:
        return replace(entry, metrics=_numbers(run.results))
    except DAMAGE as error:
        return replace(entry, status="damaged", cause=f"its results.json is damaged: {_told(error)}")


def _check(config: Any, overrides: Any) -> None:
    """Refuse what no run writes: a manifest comes from anywhere."""
    if not isinstance(config, dict) or not isinstance(config.get("seed"), int | None):
        raise TypeError("config is no mapping with a seed")
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise TypeError("overrides is no list of texts")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _hours(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() / 3600


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
