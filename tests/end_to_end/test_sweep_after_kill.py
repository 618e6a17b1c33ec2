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
from bunryu.sweeps import attempts as attempt_records
from bunryu.sweeps import runner
from bunryu.sweeps.attempts import read_record, write_record
from bunryu.sweeps.ledger import Ledger
from helpers.sweeping import (
    SLOW,
    TINY,
    Driver,
    attempts,
    bomb,
    bombs,
    ledger_in,
    outcomes,
    runs_in,
    statuses,
    steps_logged,
    until,
)  # fmt: skip
from helpers.sweeping import sweep as run_sweep

GRID = ["seed=1,2,3", "checkpoint_every_minutes=0", *SLOW]
KILLED = "killed by the system (signal 9): perhaps the memory ran out"


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bombs(tmp_path / "package", monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """What GRID comes to when nothing stops it: outcomes and closing table."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        bombs(folder / "package", monkeypatch)
        assert run_sweep(folder / "out", *GRID, "n_jobs=2") == 0
    return outcomes(folder / "out"), table(folder / "out")


def table(folder: Path) -> list[str]:
    ledger = ledger_in(folder)
    return runner.table(ledger.jobs(), ledger.facts)


def assert_each_done_once(folder: Path, jobs: int) -> None:
    """Every job has one run directory, trained to its end, and no others were ever made."""
    finished = [path for path in runs_in(folder) if (path / "manifest.json").is_file()]
    assert [Run(path).manifest["status"] for path in finished] == ["finished"] * jobs
    assert sorted(finished) == sorted(job.run or Path() for job in ledger_in(folder).jobs())


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
    fuse = tmp_path / "fuse"
    fuse.touch()
    out = tmp_path / "out"
    assert run_sweep(out, "seed=2,1", *bomb(fuse), *given) == 1
    assert statuses(out) == {"seed=2": "failed", "seed=1": "finished"}
    assert f"0  failed       seed=2  {KILLED}" in capsys.readouterr().out
    (died, other) = ledger_in(out).jobs()
    assert (died.cause, died.attempt, other.attempt) == (KILLED, 1, 1)
    assert Run(died.run or Path()).manifest["status"] == "running"  # it could not say more
    assert other.metrics["val/loss"] > 0


MOMENTS: dict[str, Callable[[Path], object]] = {
    "the first job is claimed": lambda out: list(out.glob("sweeps/*/jobs/*.1.json")),
    "a later job trains": lambda out: steps_logged(out) >= 8,
}


def started(out: Path) -> Driver:
    return Driver(out.parent / "driver.log", lambda: run_sweep(out, *GRID, "n_jobs=2"))


def restarted(out: Path, whole: tuple[dict[str, Any], list[str]]) -> None:
    """Give the command again, and compare with the sweep that nothing has stopped."""
    assert run_sweep(out, *GRID, "n_jobs=2") == 0
    assert_each_done_once(out, 3)
    assert (outcomes(out), table(out)) == whole


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_sweep_that_is_killed_goes_on(
    moment: Callable[[Path], object], tmp_path: Path, whole: tuple[dict[str, Any], list[str]]
) -> None:
    out = tmp_path / "out"
    driver = started(out)
    until(lambda: moment(out))
    driver.signal(signal.SIGKILL)
    assert driver.code() == -signal.SIGKILL
    restarted(out, whole)
    assert max(attempts(out).values()) == 2  # what was half done had another one


def test_a_sweep_that_is_killed_with_all_its_jobs_goes_on(
    tmp_path: Path, whole: tuple[dict[str, Any], list[str]]
) -> None:
    out = tmp_path / "out"
    driver = started(out)
    until(lambda: steps_logged(out) >= 3)
    os.kill(driver.pid, signal.SIGSTOP)
    running = [read_record(path)["pid"] for path in out.glob("sweeps/*/jobs/*.1.json")]
    for pid in (*running, driver.pid):
        os.kill(pid, signal.SIGKILL)
    assert driver.code() == -signal.SIGKILL
    restarted(out, whole)
    assert len(running) == 2
    assert sorted(attempts(out).values()) == [1, 2, 2]


def test_a_sweep_that_is_asked_to_stop_stops_and_goes_on(
    tmp_path: Path, whole: tuple[dict[str, Any], list[str]]
) -> None:
    out = tmp_path / "out"
    driver = started(out)
    until(lambda: steps_logged(out) >= 3)
    driver.signal(signal.SIGTERM)
    assert driver.code() == 143
    assert sorted(job.status for job in ledger_in(out).jobs()) == ["interrupted", "interrupted", "waiting"]
    restarted(out, whole)


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
    seed: int | None, tmp_path: Path, whole: tuple[dict[str, Any], list[str]]
) -> None:
    out, moments = tmp_path / "out", random.Random(seed)
    for _ in range(moments.randint(1, 3) if seed is not None else 0):
        end = time.monotonic() + moments.uniform(0.3, 15)
        real_driver_killed(out, tmp_path / "log", lambda end=end: time.monotonic() > end)
    if seed is None:
        real_driver_killed(out, tmp_path / "log", lambda: steps_logged(out) >= 4)
        assert "finished" not in (tmp_path / "log").read_text("utf-8").rpartition("jobs, ")[2]
    restarted(out, whole)


def test_two_drivers_at_once_do_each_job_once(
    tmp_path: Path, whole: tuple[dict[str, Any], list[str]]
) -> None:
    out = tmp_path / "out"
    drivers = [Driver(tmp_path / f"{n}.log", lambda: run_sweep(out, *GRID)) for n in range(2)]
    assert [driver.code() for driver in drivers] == [0, 0]
    assert_each_done_once(out, 3)
    assert set(attempts(out).values()) == {1}
    assert (outcomes(out), table(out)) == whole
    for driver in drivers:
        said = driver.log.read_text("utf-8")
        assert said.partition("3 jobs, 3 finished\n")[2].startswith("\n".join(table(out)))


def test_a_job_that_fails_under_two_drivers_fails_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    overrides = ["optimizer.lr=1e30,1e-3", "seed=1", *SLOW]  # the loss of the first is not finite
    drivers = [Driver(tmp_path / f"{n}.log", lambda: run_sweep(out, *overrides)) for n in range(2)]
    assert [driver.code() for driver in drivers] == [1, 1]
    assert [(job.status, job.attempt) for job in ledger_in(out).jobs()] == [("failed", 1), ("finished", 1)]


def test_another_hosts_job_is_waited_for_and_taken_over_when_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_sweep(out, "seed=1", "sweep_name=s") == 0
    (job,) = ledger_in(out).jobs()
    record = out / "sweeps/s/jobs" / f"{job.identity}.1.json"
    left = {**read_record(record), "host": "another", "pid": 1, "status": "running", "run": None}
    write_record(record, left)
    waited: list[str] = []

    def sleep(seconds: float) -> None:
        waited.append(ledger_in(out).job(job.identity).status)
        if len(waited) == 3:
            os.utime(record, times=(time.time() - attempt_records.DEAD - 10,) * 2)

    monkeypatch.setattr(runner.time, "sleep", sleep)
    assert run_sweep(out, "seed=1", "sweep_name=s") == 0
    assert waited == ["running"] * 3
    assert read_record(record) == left  # nobody's record is taken away
    done = Ledger(out / "sweeps/s").job(job.identity)
    assert (done.status, done.attempt, done.metrics) == ("finished", 2, job.metrics)
    assert done.run != job.run
    assert "[1/1]  0  finished " in capsys.readouterr().out


def test_another_hosts_job_that_ends_well_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ledger = Ledger.create(out / "sweeps/s", {})

    def sleep(seconds: float) -> None:
        path = next(ledger.path.glob("jobs/*.1.json"))
        write_record(path, {**read_record(path), "status": "finished", "metrics": {"val/loss": 0.5}})

    add = Ledger.add_all

    def taken(self: Ledger, jobs: Any) -> None:
        add(self, jobs)
        for identity in jobs:
            facts = {"status": "running", "run": None, "host": "another", "pid": 1}
            write_record(self.path / "jobs" / f"{identity}.1.json", facts)

    monkeypatch.setattr(runner.time, "sleep", sleep)
    monkeypatch.setattr(Ledger, "add_all", taken)
    assert run_sweep(out, "seed=1", "sweep_name=s") == 0
    assert runs_in(out) == []
    assert [line.split() for line in table(out)] == [["0", "finished", "val/loss", "0.5000"]]
