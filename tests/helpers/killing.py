"""Runs killed and resumed in forks of a warm process, and what a run comes to."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bunryu import cli

# Ten batches in two epochs, the last one of each short; a checkpoint after every optimizer step.
SMALL = [
    "model.vocabulary_size=300",
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=64",
    "limit_rows=72",
    "batch_size=16",
    "epochs=2",
    "trainer.log_every_n_steps=1",
    "checkpoint_every_minutes=0",
]
BATCHES = 10


class Fork:
    """A fork of this process.

    Args:
        log: what it says.
        work: what it does; returns an exit code.
        environment: variables of its own.
    """

    def __init__(
        self, log: Path, work: Callable[[], int], environment: Mapping[str, str] | None = None
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.pid = os.fork()
        if self.pid:
            return
        code = 99
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout = sys.stderr = os.fdopen(output, "w", encoding="utf-8", buffering=1)
            os.environ.update(environment or {})
            code = work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)

    def code(self) -> int:
        """Wait for its end; its exit code, negative for the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def said(self) -> str:
        return self.log.read_text("utf-8")


def forked(folder: Path, work: Callable[[], int]) -> int:
    """Do work in a fork that logs to the folder's console.log; its exit code."""
    return Fork(folder / "console.log", work).code()


def train(folder: Path, *overrides: str, before: Callable[[], None] = lambda: None) -> int:
    """Train in a fork; ``before`` sets a trap there."""

    def work() -> int:
        before()
        return cli.run(["train", *SMALL, f"output_root={folder}", *overrides])

    return forked(folder, work)


def resume(folder: Path, *flags: str, before: Callable[[], None] = lambda: None) -> int:
    """Resume the folder's one run in a fork."""

    def work() -> int:
        before()
        return cli.run(["resume", str(run_in(folder)), *flags])

    return forked(folder, work)


def run_in(folder: Path) -> Path:
    """The one run directory below a folder."""
    (manifest,) = folder.glob("*/*/manifest.json")
    return manifest.parent


def console(folder: Path) -> str:
    """What all processes of a folder have said."""
    return (folder / "console.log").read_text("utf-8")


def at_call(owner: Any, name: str, number: int, act: Callable[[], None]) -> Callable[[], None]:
    """A trap: ``act`` just before the ``number``-th call of a function, counted from 1."""

    def set_trap() -> None:
        original = getattr(owner, name)
        calls = 0

        def trapped(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                act()
            return original(*arguments, **keywords)

        setattr(owner, name, trapped)

    return set_trap


def die() -> None:
    """End this process as the kernel's memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


def outcome(folder: Path) -> dict[str, Any]:
    """All of the folder's one run that has to be the same to the last bit."""
    run = run_in(folder)
    texts = {name: (run / name).read_text("utf-8") for name in ("metrics.csv", "predictions/test.csv")}
    weights = hashlib.sha256((run / "model/model.safetensors").read_bytes()).hexdigest()
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    results = json.loads((run / "results.json").read_text("utf-8"))
    return {**texts, "weights": weights, "results": results, "status": manifest["status"]}
