"""A sweep's jobs through submitit: on a Slurm cluster, where they go on when the sweep's process dies."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from submitit import AutoExecutor, Job, LocalJob, SlurmJob

from bunryu.sweeps import job as sweep_job
from bunryu.sweeps.attempts import process_exists
from bunryu.sweeps.ledger import Ledger

log = logging.getLogger(__name__)

JOBS: dict[str, type[Job[int]]] = {"local": LocalJob, "slurm": SlurmJob}
POLL = 1.0  # seconds between two looks at the jobs; submitit asks Slurm itself more seldom


def submitted(
    launcher: BaseSubmititLauncher, batch: int, ledger: Ledger, identities: Iterator[str]
) -> Iterator[str]:
    """Run jobs through submitit, in arrays of ``batch``, and yield them as they end.

    The ledger keeps each job's id on the cluster: those that an earlier start has sent are found by it.
    """
    executor, folder = _executor(launcher, ledger), str(ledger.path.absolute())
    while taken := list(islice(identities, batch)):
        waiting = {name: job for name in taken if (job := _found(launcher, executor, ledger, name))}
        new = [name for name in taken if name not in waiting]
        with executor.batch() if new else nullcontext():
            sent = [executor.submit(sweep_job.run_in_child, folder, name) for name in new]
        for name, job in zip(new, sent, strict=True):
            ledger.note_submission(name, str(job.job_id))
            waiting[name] = job
        while waiting:
            for name in [name for name, job in waiting.items() if _has_ended(job)]:
                if _end_recorded(ledger, name, waiting[name]):
                    ledger.note_submission(name, None)
                    del waiting[name]
                    yield name
            time.sleep(POLL)


def _found(launcher: BaseSubmititLauncher, executor: Any, ledger: Ledger, name: str) -> Job[int] | None:
    """A job that is on the cluster already."""
    if (number := ledger.submission(name)) is None:
        return None
    job = JOBS[launcher._EXECUTOR](executor.folder, number)
    if job.state == "UNKNOWN" or _has_ended(job):
        return None
    log.info("job %s of an earlier start is waited for", number)
    return job


def _end_recorded(ledger: Ledger, name: str, sent: Job[int]) -> bool:
    """Record how a job ended that is over on the cluster, if it could not do so itself.

    False while its record still counts as alive: it would be taken for another process's job.
    """
    job = ledger.job(name)
    if job.status == "running":
        return False
    if job.status == "dead":
        ledger.record_death(job, f"it ended on the cluster ({sent.state}): {sent.paths.stderr}")
    sweep_job.record_exit(ledger, name, 1)
    return True


def _executor(launcher: BaseSubmititLauncher, ledger: Ledger) -> Any:
    """The cluster as the launcher's parameters describe it; parameters of one kind get its name as prefix."""
    cluster = launcher._EXECUTOR
    common = set(BaseQueueConf.__dataclass_fields__)
    given = {key: value for key, value in launcher.params.items() if key != "submitit_folder"}
    timeouts = {f"{cluster}_max_num_timeout": given.pop(key) for key in ["max_num_timeout"] if key in given}
    executor = AutoExecutor(folder=ledger.path / "cluster" / "%j", cluster=cluster, **timeouts)
    executor.update_parameters(**{k if k in common else f"{cluster}_{k}": v for k, v in given.items()})
    return executor


def _has_ended(job: Job[int]) -> bool:
    """Whether a job is over; a local one of an earlier start is only a process number to submitit."""
    if isinstance(job, LocalJob) and job._process is None:
        return not process_exists(int(job.job_id))
    return bool(job.done())
