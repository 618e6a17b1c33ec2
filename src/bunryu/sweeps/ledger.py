"""The ledger of a sweep: one small record a job, and who is at work on it.

A job's attempts are files that are numbered and created exclusively: whoever creates the next one has the
job, on one machine or on several that share a file system, and nobody's file is ever taken away. The file is
touched while its process lives; one that is not touched any more is dead, and the next attempt may begin.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bunryu.errors import ModelError
from bunryu.sweeps.attempts import Attempt, alive, now, read_record, write_record

SCHEMA = 1

# What decides where and how a run is kept, but not what comes out of it.
IRRELEVANT = (
    "cache_dir",
    "checkpoint_every_minutes",
    "keep_checkpoints",
    "logger",
    "output_root",
    "overwrite_cache",
)


def identity_of(config: Mapping[str, Any]) -> str:
    """The name of a job: a hash of all of its config that has a say in its result."""
    decisive = {key: value for key, value in config.items() if key not in IRRELEVANT}
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class JobState:
    """A job as its newest attempt left it.

    Args:
        number: its place in the sweep, from 0.
        identity: names its files.
        overrides: what the command line of a run of its own would be.
        config: plain values, secrets as ``${oc.env:NAME}``.
        attempt: how many there were.
        status: waiting, running, finished, failed, interrupted, pruned or dead (its process is gone).
        run: its run directory, once there is one.
        metrics: final ones, of a finished job.
        cause: why it failed.
        start: of the newest attempt, as ISO 8601 text.
        end: likewise.
        trial: its number in an Optuna study.
    """

    number: int
    identity: str
    overrides: list[str]
    config: dict[str, Any]
    attempt: int = 0
    status: str = "waiting"
    run: Path | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    cause: str | None = None
    start: str | None = None
    end: str | None = None
    trial: int | None = None


@dataclass(frozen=True)
class Ledger:
    """The folder of a sweep."""

    path: Path

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, Any]) -> Ledger:
        """Make the folder, or open it again, and note what the sweep is about."""
        (path / "jobs").mkdir(parents=True, exist_ok=True)
        write_record(path / "sweep.json", {"schema": SCHEMA, "name": path.name, **facts})
        return cls(path)

    @property
    def facts(self) -> dict[str, Any]:
        """Name, swept keys, monitor and strategy.

        Raises:
            ModelError: if the folder is no sweep's.
        """
        return read_record(self.path / "sweep.json")

    def add(
        self, identity: str, overrides: Sequence[str], config: Mapping[str, Any], trial: int | None = None
    ) -> None:
        """Note a job; one that is there already keeps its number."""
        path = self.path / "jobs" / f"{identity}.json"
        if path.is_file():
            return
        facts = {
            "identity": identity,
            "number": len(self.identities()),
            "overrides": list(overrides),
            "trial": trial,
            "config": dict(config),
        }
        write_record(path, facts)

    def job(self, identity: str) -> JobState:
        """One job as it stands.

        Raises:
            ModelError: if there is no such job, or its record is damaged.
        """
        path = self.path / "jobs" / f"{identity}.json"
        facts = read_record(path)
        if missing := {"number", "overrides", "config"} - facts.keys():
            raise ModelError(f"the record is damaged: it lacks {', '.join(sorted(missing))}", where=str(path))
        job = JobState(
            number=facts["number"],
            identity=identity,
            overrides=facts["overrides"],
            config=facts["config"],
            trial=facts.get("trial"),
        )
        return self._with_attempt(job)

    def jobs(self) -> list[JobState]:
        """All of them, in the order in which they were added."""
        return sorted(map(self.job, self.identities()), key=lambda job: (job.number, job.identity))

    def log_of(self, identity: str) -> Path:
        """Where a job's console output goes."""
        return self.path / "jobs" / f"{identity}.log"

    @contextmanager
    def claimed(self, job: JobState) -> Iterator[Attempt]:
        """Begin the next attempt at a job and keep it alive while inside.

        Args:
            job: as it was when it was found to be nobody's.

        Raises:
            BusyError: if another process has it.
        """
        attempt = Attempt(self._attempt(job.identity, job.attempt + 1))
        attempt.begin()
        with attempt.beating():
            yield attempt

    def bury(self, job: JobState, cause: str) -> None:
        """Note why the process of a job's newest attempt ended, if it could not do so itself."""
        path = self._attempt(job.identity, job.attempt)
        write_record(path, {**read_record(path), "status": "failed", "cause": cause, "end": now()})

    def submission(self, identity: str) -> str | None:
        """The job's id on a cluster it was sent to, while it may be there."""
        path = self.path / "jobs" / f"{identity}.submitted.json"
        return read_record(path).get("id") if path.is_file() else None

    def note_submission(self, identity: str, number: str | None) -> None:
        """Note a job's id on a cluster; None when it is over."""
        write_record(self.path / "jobs" / f"{identity}.submitted.json", {"id": number})

    def identities(self) -> list[str]:
        """The jobs' names."""
        folder = self.path / "jobs"
        return [name.stem for name in folder.glob("*.json") if "." not in name.stem]

    def _attempt(self, identity: str, number: int) -> Path:
        return self.path / "jobs" / f"{identity}.{number}.json"

    def _with_attempt(self, job: JobState) -> JobState:
        number = 0
        run: str | None = None
        facts: dict[str, Any] = {}
        while (path := self._attempt(job.identity, number + 1)).exists():
            number += 1
            facts = read_record(path)
            run = facts.get("run") or run  # an attempt that died early has none of its own
        if not number:
            return job
        status = facts.get("status", "running")
        if status == "running" and not alive(self._attempt(job.identity, number), facts):
            status = "dead"
        return replace(
            job,
            attempt=number,
            status=status,
            run=None if run is None else Path(os.path.normpath(self.path.absolute() / run)),
            metrics=facts.get("metrics") or {},
            cause=facts.get("cause"),
            start=facts.get("start"),
            end=facts.get("end"),
        )
