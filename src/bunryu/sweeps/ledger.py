"""The ledger of a sweep: a small record for each job, and one for each process's attempt at it.

The attempts at a job are numbered files that are created exclusively: the process that creates the next one
has the job, on one machine or on several that share a file system, and no process removes another's file. It
is touched while its process lives; once it is not touched any more, the next attempt may begin.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired

from bunryu.errors import DamagedError
from bunryu.runs.lock import is_locked
from bunryu.runs.records import MONITOR, REPORTED_CONFIG, now
from bunryu.sweeps.attempts import Attempt, alive, read_record
from bunryu.system.files import refuse_links
from bunryu.system.records import mapping, read_checked, write_record

SCHEMA = 1

# Keys that decide where and how a run is kept, but not its results.
IRRELEVANT = ("cache_dir", "checkpoint_every_minutes", "keep_checkpoints", "logger", "output_root",
              "overwrite_cache", "verbose")  # fmt: skip

SWEEP = mapping(swept=list[str], monitor=MONITOR, job_timeout_minutes=NotRequired[float | None])
JOB = mapping(number=int, overrides=list[str], config=REPORTED_CONFIG, trial=NotRequired[int | None])
SUBMISSION = mapping(id=str | None)

# A job's overrides and config.
Definition = tuple[Sequence[str], Mapping[str, Any]]


def identity_of(config: Mapping[str, Any]) -> str:
    """The name of a job: a hash of the part of its config that its results depend on."""
    decisive = {key: value for key, value in config.items() if key not in IRRELEVANT}
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class JobState:
    """A job as its newest attempt left it."""

    number: int  # its place in the sweep, from 0
    identity: str  # names its files
    overrides: list[str]  # the command line of the same run outside a sweep
    config: dict[str, Any]  # plain values, secrets as ${oc.env:NAME}
    trial: int | None = None  # its number in an Optuna study
    attempt: int = 0  # the number of the newest attempt, from 1
    status: str = "waiting"  # as its attempt's record says, or dead: its process is gone; or damaged
    is_silent: bool = False  # its process is gone without a word, though another may still hold the run
    run: Path | None = None  # its run directory, once there is one
    metrics: dict[str, Any] = field(default_factory=dict)  # final ones, of a finished job
    cause: str | None = None  # why it failed
    start: str | None = None  # of the newest attempt, as ISO 8601 text
    end: str | None = None

    @property
    def unended(self) -> bool:
        """Whether it was not begun, or its process ended before it did."""
        return self.status in ("waiting", "dead", "interrupted")


@dataclass(frozen=True)
class Ledger:
    """The folder of a sweep."""

    path: Path

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, Any]) -> Ledger:
        """Make the folder, or open it again, and note what the sweep is about."""
        (path / "jobs").mkdir(parents=True, exist_ok=True)
        refuse_links(path)
        write_record(path / "sweep.json", {"schema": SCHEMA, "name": path.name, **facts})
        return cls(path)

    @property
    def facts(self) -> dict[str, Any]:
        """Name, swept keys, monitor and strategy; raises ModelError if the folder is no sweep's."""
        return dict(read_checked(self.path / "sweep.json", SWEEP))

    def add(self, jobs: Mapping[str, Definition], trial: int | None = None) -> None:
        """Note jobs, by identity; the new ones are numbered in their order, the others keep their numbers.

        Several processes may add the same jobs at once: whatever another one has added by then, a job gets
        the number it would have got from one process alone.
        """
        known = set(self.identities())
        first = len(known) if trial is None else trial  # two searches at once have trials of their own
        for number, identity in enumerate((new for new in jobs if new not in known), first):
            path, (overrides, config) = self.path / "jobs" / f"{identity}.json", jobs[identity]
            facts = {"identity": identity, "number": number, "overrides": list(overrides), "trial": trial}
            if not path.is_file():  # another process may have been quicker
                write_record(path, {**facts, "config": dict(config)})

    def job(self, identity: str) -> JobState:
        """One job as its records say, if only that one is damaged; raises ModelError if there is none."""
        state = JobState(-1, identity, [], {})
        try:
            facts = read_checked(self.path / "jobs" / f"{identity}.json", JOB)
            overrides, config = facts["overrides"], facts["config"]
            state = JobState(facts["number"], identity, overrides, config, facts.get("trial"))
            return self._with_attempts(state)
        except DamagedError as error:
            return replace(state, status="damaged", cause=f"{error.what}; remove it to begin the job anew")

    def jobs(self) -> list[JobState]:
        """All jobs by number."""
        return sorted(map(self.job, self.identities()), key=lambda job: (job.number, job.identity))

    def log_of(self, identity: str) -> Path:
        """The file of a job's console output."""
        return self.path / "jobs" / f"{identity}.log"

    @contextmanager
    def claimed(self, job: JobState) -> Iterator[Attempt]:
        """Begin the next attempt at a job and touch its record while inside.

        The state is from before any process had the job; raises BusyError if another process has it by now.
        """
        attempt = Attempt(self._attempt(job.identity, job.attempt + 1))
        attempt.begin()
        with attempt.heartbeat():
            yield attempt

    def record_death(self, job: JobState, cause: str) -> None:
        """Note why the process of a job's newest attempt ended, which could not do so itself."""
        path = self._attempt(job.identity, job.attempt)
        write_record(path, {**read_record(path), "status": "failed", "cause": cause, "end": now()})

    def submission(self, identity: str) -> str | None:
        """The job's id on the cluster that it was sent to; None if it was not, or is over there."""
        path = self.path / "jobs" / f"{identity}.submitted.json"
        record: dict[str, str | None] = read_checked(path, SUBMISSION) if path.is_file() else {}
        return record.get("id")

    def note_submission(self, identity: str, number: str | None) -> None:
        """Note a job's id on a cluster; None when it is over."""
        write_record(self.path / "jobs" / f"{identity}.submitted.json", {"id": number})

    def identities(self) -> list[str]:
        """The jobs' names, in no order."""
        folder = self.path / "jobs"
        return [name.stem for name in folder.glob("*.json") if "." not in name.stem]

    def _attempt(self, identity: str, number: int) -> Path:
        return self.path / "jobs" / f"{identity}.{number}.json"

    def _with_attempts(self, job: JobState) -> JobState:
        """The state after all attempts at a job."""
        number, run, facts = 0, None, dict[str, Any]()
        while (path := self._attempt(job.identity, number + 1)).exists():
            number += 1
            if facts.get("status") == "finished":  # by a process that was taken for dead
                continue
            facts = read_record(path)
            run = facts.get("run") or run  # an attempt that died early has none of its own
        if not number:
            return job
        status = facts.get("status", "running")
        is_silent = status == "running" and not alive(self._attempt(job.identity, number), facts)
        place = None if run is None else Path(os.path.normpath(self.path.absolute() / run))
        if status not in ("finished", "pruned"):
            status = "running" if place and is_locked(place) else "dead" if is_silent else status
        said: dict[str, Any] = {
            key: facts[key] for key in ("metrics", "cause", "start", "end") if key in facts
        }
        return replace(job, attempt=number, status=status, is_silent=is_silent, run=place, **said)
