"""One job of a sweep, in a process of its own that keeps the record of its attempt."""

from __future__ import annotations

import logging
import secrets
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from bunryu.config.record import check_variables, fill_environment, resolved
from bunryu.errors import BusyError, ModelError, first_line
from bunryu.runs.provenance import code_changes
from bunryu.runs.run import Run, kind_of
from bunryu.sweeps.attempts import Attempt
from bunryu.sweeps.ledger import JobState, Ledger
from bunryu.system import ranks
from bunryu.system.console import log_to_console
from bunryu.system.files import bunryu_error_of
from bunryu.system.secrets import asked, mask
from bunryu.system.signals import Interrupted, Pruned

log = logging.getLogger(__name__)


def run_job(ledger: Ledger, identity: str, threads: int | None = None) -> int:
    """Bring a job to its end, from where it stopped; the exit code, 4 if another process has it.

    ``threads`` are PyTorch's on the CPU; None for its own choice, or a resumed run's.
    """
    log_to_console()
    job = ledger.job(identity)
    try:
        if job.status in ("running", "finished"):
            raise BusyError(f"the job is {job.status}", where=str(ledger.path))
        if job.status == "damaged":
            raise ModelError(str(job.cause), where=str(ledger.path / "jobs"))
        with ledger.claimed(job) as attempt:
            if minutes := ledger.facts.get("job_timeout_minutes"):
                signal.setitimer(signal.ITIMER_REAL, 60 * minutes)  # ends this process, in native code, too
            return _attempted(ledger, job, attempt, threads)
    except (BusyError, OSError) as error:  # or its record cannot be written
        if (told := bunryu_error_of(error)) is None:
            raise
        log.info("%s", told)
        return told.exit_code


def run_in_child(folder: str, identity: str) -> int:
    """Run a job in a child process and record its death, for launchers other than the pool; its exit code."""
    ledger = Ledger(Path(folder))
    command = [sys.executable, "-m", "bunryu", "job", folder, identity]
    pipe = subprocess.PIPE  # the child's standard input ends when this process does: it stops then
    with (
        open(ledger.log_of(identity), "ab") as output,
        subprocess.Popen(command, stdin=pipe, stdout=output, stderr=output, start_new_session=True) as child,
    ):
        code = child.wait()
    record_exit(ledger, identity, code)
    return code


def record_exit(ledger: Ledger, identity: str, code: int) -> None:
    """Record how a job's process ended, where it could not do so itself."""
    job = ledger.job(identity)
    if code == BusyError.exit_code:
        return
    killed = "killed by the system (signal 9): perhaps the memory ran out"
    late, stopped = "it took longer than job_timeout_minutes", "killed after a second Ctrl-C"
    causes = {-9: killed, 137: killed, -signal.SIGALRM: late, -signal.SIGINT: stopped}
    cause = causes.get(code, f"its process died with exit code {code}")
    if job.is_silent:
        ledger.record_death(job, cause)
    elif job.status == "waiting":
        with ledger.claimed(job) as attempt:
            attempt.end("failed", cause)


def _attempted(ledger: Ledger, job: JobState, attempt: Attempt, threads: int | None) -> int:
    """The attempt's exit code; its record is closed whatever happens."""
    try:
        results = _results(ledger, job, attempt, threads)
    except Interrupted as error:
        attempt.end("pruned" if isinstance(error, Pruned) else "interrupted", str(error))
        return error.exit_code
    except Exception as caught:
        if (told := bunryu_error_of(caught)) is None:
            traceback.print_exception(caught)
            attempt.end("failed", mask(f"{type(caught).__name__}: {first_line(caught)}"))
            return 1
        print(told, file=sys.stderr)
        status = "interrupted" if isinstance(told, BusyError) else "failed"  # busy: an earlier one goes on
        attempt.end(status, mask(first_line(told)))
        return told.exit_code
    attempt.end("finished", metrics={k: v for k, v in results.items() if isinstance(v, float)})
    return 0


def _results(ledger: Ledger, job: JobState, attempt: Attempt, threads: int | None) -> dict[str, Any]:
    run = _earlier_run(job)
    if run is not None:
        attempt.record_run(run.path)
        if run.is_finished():  # only its record is missing
            return run.results
    from bunryu.training import batch_size, distributed, early_checks, inputs

    filled = resolved(job.config, str(ledger.log_of(job.identity)))  # and its secrets are known
    callbacks = _pruning(job, ledger)
    if run is not None:
        check_variables(run.config, str(run.path), asked, "fresh=true")
        return distributed.execute(run, resume=True, callbacks=callbacks)
    config = dict(job.config)
    if config["seed"] is None:
        config["seed"] = secrets.randbelow(2**32)
    config = early_checks.settle_and_check(config)
    corpus = inputs.corpus_to_train_on(resolved(config, ""))
    config = batch_size.settle_batch(config, corpus=corpus)
    argv = ["bunryu", "train", *job.overrides]
    root = Path(filled["output_root"]).expanduser()
    run = Run.create(root, kind_of(config), config, argv, job.overrides, attempt.record_run)
    log.info("run directory: %s", run.path)
    if threads is not None:  # the job's; its processes share them
        threads = max(1, threads // ranks.processes_for(config["accelerator"]))
    return distributed.execute(run, threads=threads, callbacks=callbacks, corpus=corpus)


def _pruning(job: JobState, ledger: Ledger) -> list[Any]:
    """The callback that a search's pruner needs, if there is one."""
    facts = ledger.facts
    if job.trial is None or facts["pruner"] == "none":
        return []
    from bunryu.sweeps.study import trial_of
    from bunryu.training.callbacks import Pruning

    storage = fill_environment(facts["storage"], "hydra.sweeper.storage")
    return [Pruning(trial_of(ledger, job.trial, storage, facts["pruner"]), facts["monitor"].split()[1])]


def _earlier_run(job: JobState) -> Run | None:
    """The run of an earlier attempt; None if there is none, or the code has changed since."""
    if job.run is None or not (job.run / "manifest.json").is_file():
        return None
    run = Run(job.run)
    changes = code_changes(run.manifest)
    if changes and not run.is_finished():
        log.warning("begun anew, since what the job ran on has changed: %s", "; ".join(changes))
        return None
    return run
