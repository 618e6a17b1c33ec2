"""Sweeps of a few tiny runs, drivers of them in forks that can be killed, callbacks that end or slow jobs."""

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
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.pool import WARM

TINY = ["limit_rows=72", "batch_size=16", "epochs=1", "trainer.log_every_n_steps=1", "logger=none"]

CALLBACKS = """\
import os
import time

import pytorch_lightning as pl


class Die(pl.Callback):
    def __init__(self, seed: int, dying: int, flag: str) -> None:
        self._dies = seed == dying and os.path.exists(flag)

    def on_train_batch_end(self, trainer, *arguments) -> None:
        if self._dies and trainer.global_step == 3:
            os._exit(137)


class Slow(pl.Callback):
    def on_train_batch_end(self, *arguments) -> None:
        time.sleep(0.1)
"""
SLOW = ["+callbacks.slow._target_=sweep_callbacks.Slow"]


def make_callbacks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the callbacks above importable in jobs, however they are launched."""
    folder.mkdir()
    (folder / "sweep_callbacks.py").write_text(CALLBACKS, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("BUNRYU_ALLOWED_TARGETS", "sweep_callbacks")


def dying(flag: Path) -> list[str]:
    """Overrides for the job with seed 2 to die in its epoch as long as the flag, a file made here, is."""
    flag.touch()
    options = ["_target_=sweep_callbacks.Die", "seed=${seed}", "dying=2", f"flag={flag}"]
    return [f"+callbacks.die.{option}" for option in options]


def sweep(folder: Path, *overrides: str) -> int:
    """``bunryu train -m`` in this process; its exit code."""
    return cli.run(["train", "-m", *TINY, f"output_root={folder}", *overrides])


def ledger_in(folder: Path) -> Ledger:
    (record,) = folder.glob("sweeps/*/sweep.json")
    return Ledger(record.parent)


def runs_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.parent.name != "sweeps")


def steps_logged(folder: Path) -> int:
    return sum(path.read_text("utf-8").count(",train/loss,") for path in folder.glob("*/*/metrics.csv"))


def attempts(folder: Path) -> list[int]:
    return [job.attempt for job in ledger_in(folder).jobs()]


def outcomes(folder: Path) -> dict[str, Any]:
    """What each job of a sweep came to, by its identity; to the last bit."""
    found = {}
    for job in ledger_in(folder).jobs():
        run = Run(job.run or Path())
        weights = hashlib.sha256((run.path / "model/model.safetensors").read_bytes()).hexdigest()
        found[job.identity] = (job.number, job.metrics, run.results, run.metrics, weights)
    return found


class Driver:
    """A fork of this process that does some work, with jobs from this process's fork server."""

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

    def stop(self, number: int) -> int:
        os.kill(self.pid, number)
        return self.code()

    def code(self) -> int:
        """Wait for its end; its exit code, negative for the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


def replace_python(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have children be this shell script where they would be ``python -m bunryu …``."""
    script = folder / "python.sh"
    script.write_text(f"#!/bin/sh\n{code}\n", "utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
