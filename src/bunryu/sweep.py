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
from typing import Any

from bunryu.attempts import HEARTBEAT
from bunryu.errors import BusyError, TrainingError
from bunryu.ledger import IRRELEVANT, JobState, Ledger

log = logging.getLogger(__name__)

# Brings jobs to their ends and yields them as they end; asks for the next one when that can begin.
Launch = Callable[[Ledger, Iterator[str]], Iterator[str]]


@dataclass(frozen=True)
class Policy:
    """What the user decided about a sweep.

    Args:
        retry: whether jobs that failed before are tried again.
        stop: whether no further job begins once one has failed.
    """

    retry: bool
    stop: bool


def name_of(config: Mapping[str, Any], swept: Sequence[str]) -> str:
    """A sweep's name, from the keys it sweeps over and a hash of all else in its config.

    Args:
        config: of a run without the swept keys' values.
        swept: their names.
    """
    rest = {key: value for key, value in _leaves(config) if not _below(key, (*swept, *IRRELEVANT))}
    digest = hashlib.sha256(json.dumps([rest, sorted(swept)], sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*(key.rpartition(".")[2].replace("/", "_") for key in swept), digest])[-80:]


def put_aside(ledger: Ledger) -> None:
    """Rename a sweep's folder, for another one to take its name.

    Raises:
        BusyError: if one of its jobs is running.
    """
    path = ledger.path
    if any(job.status == "running" for job in ledger.jobs()):
        raise BusyError("jobs of this sweep are running", where=str(path), fix="wait until they end")
    begun = datetime.fromtimestamp((path / "sweep.json").stat().st_mtime)
    os.rename(path, path.with_name(f"{path.name}.{begun:%Y-%m-%d_%H-%M-%S.%f}"))


def run(ledger: Ledger, identities: Sequence[str], launch: Launch, policy: Policy) -> None:
    """Bring jobs to their ends: those that are missing, failed or half done, each by one process only.

    Jobs that another process works on are waited for.

    Raises:
        TrainingError: if any failed.
    """
    known = {identity: ledger.job(identity) for identity in identities}
    log.info("sweep %s: %s", ledger.path, _counts(known.values()))
    tried: set[str] = set()
    progress = _Progress(ledger, len(identities), sum(job.status == "finished" for job in known.values()))
    while True:
        states = [ledger.job(identity) for identity in identities if identity not in tried]
        todo = [job.identity for job in states if _is_to_do(job, policy)]
        if todo and not (policy.stop and progress.failed):
            for identity in launch(ledger, _until_failure(todo, tried, policy, progress)):
                job = ledger.job(identity)
                if job.status == "running":  # another process was quicker: it is waited for
                    tried.discard(identity)
                else:
                    progress.ended(job)
        elif any(job.status == "running" for job in states):
            time.sleep(min(1.0, HEARTBEAT))
        else:
            break
    conclude(ledger, identities)


def conclude(ledger: Ledger, identities: Sequence[str]) -> None:
    """Log the closing table.

    Raises:
        TrainingError: if any job did not finish.
    """
    jobs = sorted((ledger.job(identity) for identity in identities), key=lambda job: job.number)
    log.info("%s\n%s", _counts(jobs), "\n".join(table(jobs, ledger.facts)))
    log.info("next\n  bunryu report %s", shlex.quote(str(ledger.path)))
    unfinished = [job for job in jobs if job.status not in ("finished", "pruned")]
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
    """Says how each job ended, and how many are left."""

    def __init__(self, ledger: Ledger, total: int, done: int) -> None:
        self._facts = ledger.facts
        self._ledger = ledger
        self._total = total
        self._done = done
        self.failed = 0

    def ended(self, job: JobState) -> None:
        self._done += job.status in ("finished", "pruned")
        self.failed += job.status not in ("finished", "pruned")
        log.info("[%d/%d]%s", self._done, self._total, table([job], self._facts)[0][2:])
        if job.status not in ("finished", "pruned"):
            log.info("  its output: %s", self._ledger.log_of(job.identity))


def _until_failure(
    identities: Iterable[str], tried: set[str], policy: Policy, progress: _Progress
) -> Iterator[str]:
    for identity in identities:
        if policy.stop and progress.failed:
            return
        tried.add(identity)
        yield identity


def _is_to_do(job: JobState, policy: Policy) -> bool:
    return job.status in ("waiting", "dead", "interrupted") or (job.status == "failed" and policy.retry)


def _counts(jobs: Iterable[JobState]) -> str:
    statuses = [job.status for job in jobs]
    parts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses))]
    return f"{len(statuses)} jobs, {', '.join(parts)}"


def _own(job: JobState, swept: Sequence[str]) -> str:
    """Its overrides of the swept keys."""
    return " ".join(item for item in job.overrides if item.lstrip("+").partition("=")[0] in swept)


def _outcome(job: JobState, metric: str) -> str:
    if metric in job.metrics:
        return f"{metric} {job.metrics[metric]:.4f}"
    return job.cause or ""


def _below(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
