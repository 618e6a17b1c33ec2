"""A sweep's jobs through submitit: on a Slurm cluster, where they live on when the one who sent them dies."""

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
from bunryu.sweeps.attempts import exists
from bunryu.sweeps.ledger import Ledger

log = logging.getLogger(__name__)

JOBS: dict[str, type[Job[int]]] = {"local": LocalJob, "slurm": SlurmJob}
POLL = 1.0  # seconds between two looks at the jobs; submitit asks Slurm itself more seldom


def submitted(
    launcher: BaseSubmititLauncher, batch: int, ledger: Ledger, identities: Iterator[str]
) -> Iterator[str]:
    """Jobs through submitit, in arrays; those that an earlier start sent and left are found by their ids.

    Args:
        launcher: of hydra-submitit-launcher, with the user's queue, time and memory.
        batch: jobs of an array.
        ledger: keeps each job's id on the cluster.
        identities: the jobs.

    Yields:
        Identities in the order in which the jobs end.
    """
    executor = _executor(launcher, ledger)
    while taken := list(islice(identities, batch)):
        waiting = {name: job for name in taken if (job := _found(launcher, executor, ledger, name))}
        new = [name for name in taken if name not in waiting]
        with executor.batch() if new else nullcontext():
            sent = [executor.submit(sweep_job.start, str(ledger.path.absolute()), name) for name in new]
        for name, job in zip(new, sent, strict=True):
            ledger.note_submission(name, str(job.job_id))
            waiting[name] = job
        while waiting:
            for name in [name for name, job in waiting.items() if _has_ended(job)]:
                if not _closed(ledger, name, waiting[name]):
                    continue
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


def _closed(ledger: Ledger, name: str, sent: Job[int]) -> bool:
    """Record the end of a job that is over on the cluster, if nothing in it could do so itself.

    One that was at work a moment ago is let be until its record counts as dead: else it would seem to be
    another process' job, and be sent again for ever.
    """
    job = ledger.job(name)
    if job.status == "running":
        return False
    if job.status == "dead":
        ledger.bury(job, f"it ended on the cluster ({sent.state}): {sent.paths.stderr}")
    sweep_job.close(ledger, name, 1)
    return True


def _executor(launcher: BaseSubmititLauncher, ledger: Ledger) -> Any:
    """The cluster as the launcher's parameters describe it; those of one cluster carry its name."""
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
        return not exists(int(job.job_id))
    return bool(job.done())
