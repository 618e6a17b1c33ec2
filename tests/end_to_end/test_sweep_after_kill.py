"""Whatever ends a job or a sweep, no job is lost and none is done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bunryu.runs.run import Run
from bunryu.sweeps import runner
from bunryu.sweeps.attempts import DEAD, read_record, write_record
from bunryu.sweeps.ledger import Ledger
from helpers.sweeping import (
    SLOW,
    TINY,
    Driver,
    attempts,
    dying,
    ledger_in,
    make_callbacks,
    outcomes,
    runs_in,
    steps_logged,
    until,
)  # fmt: skip
from helpers.sweeping import sweep as run_sweep

GRID = ["seed=1,2,3", "checkpoint_every_minutes=0", *SLOW]
KILLED = "killed by the system (signal 9): perhaps the memory ran out"

Whole = tuple[dict[str, Any], list[str]]


@pytest.fixture(autouse=True)
def _callbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_callbacks(tmp_path / "package", monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What GRID comes to when nothing stops it: outcomes and closing table."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_callbacks(folder / "package", monkeypatch)
        assert run_sweep(folder / "out", *GRID, "n_jobs=2") == 0
    return outcomes(folder / "out"), table(folder / "out")


def table(folder: Path) -> list[str]:
    ledger = ledger_in(folder)
    return runner.table(ledger.jobs(), ledger.facts)


def assert_each_done_once(folder: Path, whole: Whole) -> None:
    """Every job has one run directory, trained as if nothing had stopped it; no others were made."""
    finished = [path for path in runs_in(folder) if (path / "manifest.json").is_file()]
    assert [Run(path).manifest["status"] for path in finished] == ["finished"] * 3
    assert sorted(finished) == sorted(job.run or Path() for job in ledger_in(folder).jobs())
    assert (outcomes(folder), table(folder)) == whole


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        pytest.param("basic", [], marks=pytest.mark.full),
        pytest.param("joblib", ["n_jobs=2", "backend=threading"], marks=pytest.mark.full),
        ("submitit_local", []),
    ],
)
def test_a_job_that_dies_with_other_launchers_leaves_the_others_and_is_named(
    launcher: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    given = [f"hydra/launcher={launcher}", *(f"hydra.launcher.{option}" for option in options)]
    out = tmp_path / "out"
    assert run_sweep(out, "seed=2,1", *dying(tmp_path / "flag"), *given) == 1
    assert f"0  failed       seed=2  {KILLED}" in capsys.readouterr().out
    (died, other) = ledger_in(out).jobs()
    assert (died.status, died.cause, died.attempt) == ("failed", KILLED, 1)
    assert (other.status, other.attempt) == ("finished", 1)
    assert Run(died.run or Path()).manifest["status"] == "running"  # it could not say more


def test_a_sweep_that_is_killed_or_asked_to_stop_again_and_again_goes_on(
    tmp_path: Path, whole: Whole
) -> None:
    out = tmp_path / "out"

    def started(moment: Callable[[], object]) -> Driver:
        driver = Driver(tmp_path / "driver.log", lambda: run_sweep(out, *GRID, "n_jobs=2"))
        until(moment)
        return driver

    # its process, as soon as the first job is claimed
    driver = started(lambda: list(out.glob("sweeps/*/jobs/*.1.json")))
    assert driver.stop(signal.SIGKILL) == -signal.SIGKILL

    # both jobs that it runs, and then it
    driver = started(lambda: steps_logged(out) >= 3)
    os.kill(driver.pid, signal.SIGSTOP)
    running = [job for job in ledger_in(out).jobs() if job.status == "running"]
    for job in running:
        newest = ledger_in(out).path / "jobs" / f"{job.identity}.{job.attempt}.json"
        os.kill(read_record(newest)["pid"], signal.SIGKILL)
    assert driver.stop(signal.SIGKILL) == -signal.SIGKILL
    assert len(running) == 2
    until(lambda: all(ledger_in(out).job(job.identity).status == "dead" for job in running), 10)

    # all, by a signal that asks to stop
    driver = started(lambda: steps_logged(out) >= 5)
    assert driver.stop(signal.SIGTERM) == 143
    statuses = [job.status for job in ledger_in(out).jobs()]
    assert "interrupted" in statuses
    assert set(statuses) <= {"interrupted", "waiting", "finished"}

    # its process, when the last job trains: the other two have no more than ten steps
    driver = started(lambda: steps_logged(out) >= 11)
    assert driver.stop(signal.SIGKILL) == -signal.SIGKILL
    assert run_sweep(out, *GRID, "n_jobs=2") == 0
    assert_each_done_once(out, whole)


def real_driver_killed(out: Path, log: Path, moment: Callable[[], object]) -> None:
    command = [sys.executable, "-m", "bunryu", "train", "-m", *TINY, f"output_root={out}", *GRID]
    with open(log, "ab") as output:
        process = subprocess.Popen([*command, "n_jobs=2"], stdout=output, stderr=output)
    until(lambda: moment() or process.poll() is not None)
    process.kill()
    process.wait()


@pytest.mark.full
@pytest.mark.parametrize("seed", [None, *range(10)])
def test_a_real_process_that_is_killed_in_training_or_at_random_moments_goes_on(
    seed: int | None, tmp_path: Path, whole: Whole
) -> None:
    out, moments = tmp_path / "out", random.Random(seed)
    for _ in range(moments.randint(1, 3) if seed is not None else 0):
        end = time.monotonic() + moments.uniform(0.3, 15)
        real_driver_killed(out, tmp_path / "log", lambda end=end: time.monotonic() > end)
    if seed is None:
        real_driver_killed(out, tmp_path / "log", lambda: steps_logged(out) >= 4)
        assert "finished" not in (tmp_path / "log").read_text("utf-8").rpartition("jobs, ")[2]
    assert run_sweep(out, *GRID, "n_jobs=2") == 0
    assert_each_done_once(out, whole)


def test_two_drivers_at_once_do_each_job_once(tmp_path: Path, whole: Whole) -> None:
    out = tmp_path / "out"
    drivers = [Driver(tmp_path / f"{n}.log", lambda: run_sweep(out, *GRID)) for n in range(2)]
    assert [driver.code() for driver in drivers] == [0, 0]
    assert_each_done_once(out, whole)
    assert attempts(out) == [1, 1, 1]
    for driver in drivers:
        said = driver.log.read_text("utf-8")
        assert said.partition("3 jobs, 3 finished\n")[2].startswith("\n".join(table(out)))


def test_a_driver_and_its_job_that_were_stopped_keep_the_job(tmp_path: Path) -> None:
    """As on a laptop that slept, while another command for the same sweep went on."""
    out = tmp_path / "out"
    first = Driver(tmp_path / "1.log", lambda: run_sweep(out, "seed=1", *SLOW))
    until(lambda: steps_logged(out) >= 1)
    (job,) = ledger_in(out).jobs()
    record = ledger_in(out).path / "jobs" / f"{job.identity}.1.json"
    stopped = [first.pid, read_record(record)["pid"]]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        os.utime(record, times=(time.time() - DEAD - 10,) * 2)
        second = Driver(tmp_path / "2.log", lambda: run_sweep(out, "seed=1", *SLOW))
        until(lambda: second.log.exists() and "1 jobs, 1 running" in second.log.read_text("utf-8"))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert [first.code(), second.code()] == [0, 0]
    assert (attempts(out), len(runs_in(out))) == ([1], 1)
    for driver in (first, second):
        assert "\n".join(["1 jobs, 1 finished", *table(out)]) in driver.log.read_text("utf-8")


def test_a_job_that_fails_under_two_drivers_fails_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    overrides = ["optimizer.lr=1e30,1e-3", "seed=1", *SLOW]  # the loss of the first is not finite
    drivers = [Driver(tmp_path / f"{n}.log", lambda: run_sweep(out, *overrides)) for n in range(2)]
    assert [driver.code() for driver in drivers] == [1, 1]
    assert [(job.status, job.attempt) for job in ledger_in(out).jobs()] == [("failed", 1), ("finished", 1)]


@pytest.mark.parametrize("dies", [True, False])
def test_another_hosts_job_is_waited_for_and_done_again_only_if_that_host_is_dead(
    dies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, waited = tmp_path / "out", list[str]()
    left: dict[str, Any] = {"status": "running", "run": None, "host": "another", "pid": 1}
    add = Ledger.add

    def taken(self: Ledger, jobs: Any) -> None:
        add(self, jobs)
        for identity in jobs:
            write_record(self.path / "jobs" / f"{identity}.1.json", left)

    def sleep(seconds: float) -> None:
        (job,) = ledger_in(out).jobs()
        waited.append(job.status)
        record = out / "sweeps/s/jobs" / f"{job.identity}.1.json"
        if dies and len(waited) == 3:
            os.utime(record, times=(time.time() - DEAD - 10,) * 2)
        elif len(waited) == 3:
            write_record(record, {**left, "status": "finished", "metrics": {"val/loss": 0.5}})

    monkeypatch.setattr(Ledger, "add", taken)
    monkeypatch.setattr(runner.time, "sleep", sleep)
    assert run_sweep(out, "seed=1", "sweep_name=s") == 0
    assert waited == ["running"] * 3
    (job,) = ledger_in(out).jobs()
    assert (job.status, job.attempt, len(runs_in(out))) == ("finished", 1 + dies, int(dies))
    if dies:
        assert read_record(out / "sweeps/s/jobs" / f"{job.identity}.1.json") == left  # nobody takes it away
        assert "[1/1]  0  finished " in capsys.readouterr().out
