"""Sweeps of a few tiny runs, their drivers in forks that can be killed, and a callback that kills a job."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.sweeps.ledger import JobState, Ledger
from bunryu.sweeps.pool import WARM

TINY = ["limit_rows=72", "batch_size=16", "epochs=1", "trainer.log_every_n_steps=1", "logger=none"]

# Ends the process of the job whose seed is the victim's, in the middle of its epoch.
BOMB = """\
import os
import time

import pytorch_lightning as pl


class Bomb(pl.Callback):
    def __init__(self, seed: int, victim: int, fuse: str) -> None:
        self._armed = seed == victim and os.path.exists(fuse)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if self._armed and trainer.global_step == 3:
            os._exit(137)


class Slow(pl.Callback):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        time.sleep(self._seconds)
"""
SLOW = ["+callbacks.slow._target_=bombs.Slow", "+callbacks.slow.seconds=0.1"]


def sweep(folder: Path, *overrides: str) -> int:
    """``bunryu train -m`` in this process; its exit code."""
    return cli.run(["train", "-m", *TINY, f"output_root={folder}", *overrides])


def ledger_in(folder: Path) -> Ledger:
    """The ledger of a folder's one sweep."""
    (record,) = folder.glob("sweeps/*/sweep.json")
    return Ledger(record.parent)


def statuses(folder: Path) -> dict[str, str]:
    """Each job's own overrides, the swept ones at their end, and its status."""
    return {" ".join(own(job)): job.status for job in ledger_in(folder).jobs()}


def own(job: JobState) -> list[str]:
    """What a job's command line has beyond what all tests' have."""
    return [item for item in job.overrides if item.startswith(("seed=", "optimizer.lr=", "max_seq"))]


def runs_in(folder: Path) -> list[Path]:
    """All run directories."""
    return sorted(path for path in folder.glob("*/*") if path.parent.name != "sweeps")


def steps_logged(folder: Path) -> int:
    """How many training steps the runs of a folder have logged."""
    files = [path / "metrics.csv" for path in runs_in(folder)]
    return sum(path.read_text("utf-8").count(",train/loss,") for path in files if path.is_file())


def attempts(folder: Path) -> dict[str, int]:
    """How many attempts each job has had, by its identity."""
    return {job.identity: job.attempt for job in ledger_in(folder).jobs()}


def outcomes(folder: Path) -> dict[str, Any]:
    """What each job of a sweep came to, by its identity; to the last bit."""
    found = {}
    for job in ledger_in(folder).jobs():
        assert job.run is not None, job
        run = Run(job.run)
        weights = hashlib.sha256((run.path / "model/model.safetensors").read_bytes()).hexdigest()
        found[job.identity] = (job.number, job.metrics, run.results, run.metrics, weights)
    return found


def bombs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the callbacks above importable in jobs, however they are launched."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bombs.py").write_text(BOMB, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("BUNRYU_ALLOWED_TARGETS", "bombs")


def bomb(fuse: Path, victim: int = 2) -> list[str]:
    """Overrides for a job to die as long as the fuse is a file."""
    return [
        "+callbacks.bomb._target_=bombs.Bomb",
        "+callbacks.bomb.seed=${seed}",
        f"+callbacks.bomb.victim={victim}",
        f"+callbacks.bomb.fuse={fuse}",
    ]


class Driver:
    """A sweep's driver in a fork of this process, whose jobs come from this process' fork server.

    Args:
        log: what it says.
        work: what it does; returns an exit code.
    """

    def __init__(self, log: Path, work: Callable[[], int]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        forkserver.set_forkserver_preload(list(WARM))
        forkserver.ensure_running()
        self.log = log
        self.pid = os.fork()
        if self.pid:
            return
        code = 99
        try:
            forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
            forkserver.ensure_running = lambda: None  # type: ignore[assignment]
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = sys.stderr = os.fdopen(output, "w", encoding="utf-8", buffering=1)
            code = work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def code(self) -> int:
        """Wait for its end; its exit code, negative for the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)
