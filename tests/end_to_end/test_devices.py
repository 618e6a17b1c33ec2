"""Several processes train one run, and one of them, or the command that started them, ends early."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bunryu import cli
from bunryu.runs.run import Run
from helpers.killing import Fork, outcome
from helpers.sweeping import until
from helpers.together import (
    SLOW,
    alone,
    as_torchrun,
    free_port,
    harm,
    runs_in,
    together,
    train,
    witnesses,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("warm")

# Eight batches of 32 rows an epoch: of few, sums come to the same in any order.
TWO = ["accelerator.devices=2", "model.architecture.hidden_dropout_prob=0.1", "limit_rows=240", *SLOW]


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witnesses(tmp_path / "package", monkeypatch)


@pytest.fixture(scope="module")
def whole(warm: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes come to when nothing stops them."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        witnesses(folder / "package", monkeypatch)
        assert together(folder, train(folder, *TWO)) == [0, 0], (folder / "0.log").read_text("utf-8")
    return outcome(folder / "out")


def processes_of(run: Path) -> list[int]:
    """The processes that train a run, by their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"join" in line and str(run).encode() in line:
                found.append(int(entry.name))
    return found


def steps_of(run: Path) -> int:
    metrics = run / "metrics.csv"
    return metrics.read_text("utf-8").count(",train/loss,") if metrics.is_file() else 0


def begun(folder: Path, steps: int = 5) -> Path:
    """The run directory, once it has trained so many steps."""
    until(lambda: any(steps_of(run) >= steps for run in runs_in(folder)), 120.0)
    (run,) = runs_in(folder)
    return run


def ended(fork: Fork, seconds: float = 120.0) -> int:
    """The fork's exit code; it has to come in time."""
    end = time.monotonic() + seconds
    while (found := os.waitpid(fork.pid, os.WNOHANG))[0] == 0:
        assert time.monotonic() < end, fork.said()
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(found[1])


@pytest.mark.cpus
def test_the_command_asked_to_stop_stops_all_and_killed_when_resumed_they_still_go_on(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    fork = alone(tmp_path, *train(tmp_path, *TWO))
    run = begun(tmp_path)
    assert len(processes_of(run)) == 2
    os.kill(fork.pid, signal.SIGTERM)
    assert ended(fork) == 143, fork.said()
    assert processes_of(run) == []
    manifest = Run(run).manifest
    assert (manifest["status"], manifest["exit_reason"]) == ("interrupted", "SIGTERM")
    assert Run(run).results == {}
    assert fork.said().count("interrupted; to go on: bunryu resume") == 1
    assert "death signal" not in fork.said()  # the launcher's own words
    steps, port, resume = steps_of(run), free_port(), ["resume", str(run)]
    forks = [
        Fork(tmp_path / f"{rank}.log", lambda: cli.run(resume), as_torchrun(rank, 2, port)) for rank in (0, 1)
    ]
    begun(tmp_path, steps + 2)
    for fork in forks:
        os.kill(fork.pid, signal.SIGKILL)
    assert [fork.code() for fork in forks] == [-signal.SIGKILL] * 2
    assert f"step {steps}" in (tmp_path / "0.log").read_text("utf-8")  # none was lost
    assert Run(run).manifest["status"] == "running"
    assert together(tmp_path, resume) == [0, 0], (tmp_path / "0.log").read_text("utf-8")
    assert outcome(tmp_path / "out") == whole


@pytest.mark.full
def test_the_command_killed_its_processes_end_by_themselves(whole: dict[str, Any], tmp_path: Path) -> None:
    fork = alone(tmp_path, *train(tmp_path, *TWO))
    run = begun(tmp_path)
    os.kill(fork.pid, signal.SIGKILL)
    assert ended(fork) == -signal.SIGKILL
    until(lambda: not processes_of(run))
    assert Run(run).manifest["status"] == "interrupted"
    resumed = alone(tmp_path / "again", "resume", str(run))
    assert ended(resumed) == 0, resumed.said()
    assert outcome(tmp_path / "out") == whole


HARM = {
    "exit": (1, "a process died with exit code 7", "TrainingError: a process died with exit code 7"),
    "kill": (1, "killed by the system (signal 9)", "TrainingError: a process was killed by the system"),
    "memory": (3, "out of memory with batch_size=16", "OutOfMemory: "),
    "raise": (1, "ZeroDivisionError", "TrainingError: "),
}


@pytest.mark.full
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", HARM)
def test_a_process_that_comes_to_harm_fails_the_run(
    kind: str, rank: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    code, said, recorded = HARM[kind]
    fuse = tmp_path / "fuse"
    fork = alone(tmp_path, *train(tmp_path, *TWO, *harm(kind, rank, fuse)))
    assert ended(fork) == code, fork.said()
    assert said in fork.said()
    assert "pair.cc" not in fork.said()  # gloo's own words
    (run,) = runs_in(tmp_path)
    assert processes_of(run) == []
    manifest = Run(run).manifest
    assert manifest["status"] == "failed"
    assert recorded in manifest["exit_reason"]
    if kind == "raise":  # of another process's death the first one knows no more than that it is gone
        known = ("ZeroDivisionError", "a process died; it says above of what")
        assert known[rank] in manifest["exit_reason"]
    if rank == 1 and kind in ("exit", "memory"):
        fuse.unlink()
        resumed = alone(tmp_path / "again", "resume", str(run))
        assert ended(resumed) == 0, resumed.said()
        assert outcome(tmp_path / "out") == whole
