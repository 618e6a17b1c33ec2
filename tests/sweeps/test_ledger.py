"""One record a job: who has it, what came out of it; safe when many ask at once."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bunryu.errors import BusyError, ModelError
from bunryu.runs.lock import is_locked, locked
from bunryu.sweeps.attempts import read_record
from bunryu.sweeps.job import run_job
from bunryu.sweeps.ledger import IRRELEVANT, Ledger, identity_of
from bunryu.sweeps.runner import GridJobs
from helpers.killing import Fork
from helpers.refusing import refused
from helpers.sweeping import Driver, until

CONFIG: dict[str, Any] = {"seed": 1, "optimizer": {"lr": 0.001}, **dict.fromkeys(IRRELEVANT)}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "outputs/sweeps/s", {"swept": ["seed"], "monitor": "min val/loss"})
    made.add({"aaa": (["seed=1"], CONFIG)})
    return made


def test_a_jobs_name_is_of_all_that_its_results_depend_on_and_of_nothing_else() -> None:
    name = identity_of(CONFIG)
    assert len(name) == 12
    assert identity_of(dict(reversed(CONFIG.items()))) == name
    assert {identity_of({**CONFIG, key: "something else"}) for key in IRRELEVANT} == {name}
    changes: list[dict[str, Any]] = [
        {"seed": 2}, {"optimizer": {"lr": 0.002}}, {"more": None}, {"seed": "1"}, {"seed": None},
    ]  # fmt: skip
    assert len({name, *(identity_of({**CONFIG, **change}) for change in changes)}) == 6


@pytest.mark.parametrize("seen", ["bc", "bd", "d", ""])
def test_a_grid_added_twice_at_once(seen: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has looked for jobs while the other added some, of which a folder's listing may miss any."""
    grid: dict[str, Any] = {name: ([f"seed={name}"], {}) for name in "bcdef"}
    ledger.add(dict(list(grid.items())[:3]))
    with monkeypatch.context() as context:
        context.setattr(Ledger, "identities", lambda self: ["aaa", *seen])
        ledger.add(grid)
    ledger.add({"aaa": ([], {})})
    (ledger.path / "jobs" / ".bbb.json-01234567").write_text("{", "utf-8")  # what a killed writer leaves
    assert [(job.number, job.identity) for job in ledger.jobs()] == [*enumerate(["aaa", *"bcdef"])]
    assert (ledger.job("aaa").overrides, ledger.job("aaa").config) == (["seed=1"], CONFIG)  # the first ones


def test_two_searches_that_add_at_once_give_no_number_twice(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "identities", lambda self: ["aaa"])  # neither has seen the other's job yet
    for trial, name in ((4, "bbb"), (5, "ccc")):
        ledger.add({name: ([], CONFIG)}, trial)
    assert [ledger.job(name).number for name in ("bbb", "ccc")] == [4, 5]


def test_of_many_processes_one_gets_a_job_until_it_is_killed(ledger: Ledger, tmp_path: Path) -> None:
    waiting = ledger.job("aaa")
    assert (waiting.status, waiting.attempt, waiting.run, waiting.metrics) == ("waiting", 0, None, {})

    def claim() -> int:
        until((tmp_path / "go").exists)
        try:
            with ledger.claimed(waiting):
                time.sleep(60)
        except BusyError as error:
            return error.exit_code
        return 0

    drivers = [Driver(tmp_path / "log", claim) for _ in range(4)]
    (tmp_path / "go").touch()
    until(lambda: ledger.job("aaa").start is not None)
    pid = read_record(ledger.path / "jobs" / "aaa.1.json")["pid"]
    (winner,) = (driver for driver in drivers if driver.pid == pid)
    assert [driver.code() for driver in drivers if driver is not winner] == [4, 4, 4]
    assert winner.stop(signal.SIGKILL) == -signal.SIGKILL
    job = ledger.job("aaa")  # at once: on this machine it is known to be gone
    assert (job.status, job.attempt) == ("dead", 1)
    with ledger.claimed(job) as attempt:
        assert attempt.path.name == "aaa.2.json"
        assert (ledger.job("aaa").status, ledger.job("aaa").attempt) == ("running", 2)


def test_the_death_of_a_process_is_recorded_and_its_jobs_earlier_run_is_known(ledger: Ledger) -> None:
    run = ledger.path.parents[1] / "sample-tiny" / "run"
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.record_run(run)
        attempt.end("interrupted", "SIGTERM")
    with ledger.claimed(ledger.job("aaa")):
        pass  # it dies without a run of its own
    ledger.record_death(ledger.job("aaa"), "killed")
    job = ledger.job("aaa")
    assert (job.status, job.cause, job.attempt, job.run) == ("failed", "killed", 2, run)
    assert job.end is not None


def test_sweep_and_runs_can_be_moved_together_and_a_relative_folder_leads_to_absolute_runs(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Ledger(Path("outputs/sweeps/s"))
    with relative.claimed(relative.job("aaa")) as attempt:
        attempt.record_run(Path("outputs/sample-tiny/run"))
        attempt.end("finished")
    assert relative.job("aaa").run == tmp_path / "outputs/sample-tiny/run"
    shutil.move("outputs", "else where")
    assert Ledger(tmp_path / "else where/sweeps/s").job("aaa").run == tmp_path / "else where/sample-tiny/run"


def test_a_run_that_a_process_holds_is_running_and_what_that_one_finishes_counts(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Another attempt began since the first one's process, on another host, was taken for dead."""
    run = tmp_path / "run"
    run.mkdir()

    def hold() -> int:
        with locked(run):
            time.sleep(60)
        return 0

    with ledger.claimed(ledger.job("aaa")) as first:
        first.record_run(run)
    with ledger.claimed(ledger.job("aaa")) as second:
        second.end("interrupted", "the run is held")
    assert not is_locked(run)
    holder = Fork(tmp_path / "log", hold)
    until(lambda: ledger.job("aaa").status == "running")
    first.end("finished", metrics={"val/loss": 0.5})
    assert ledger.job("aaa").status == "finished"
    os.kill(holder.pid, signal.SIGKILL)
    holder.code()
    job = ledger.job("aaa")
    assert (job.status, job.attempt, job.run, job.metrics) == ("finished", 2, run, {"val/loss": 0.5})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("aaa.json", "", "aaa.json is damaged: EOF while parsing a value at line 1 column 0"),
        (
            "aaa.json",
            '{"number": 0, "overrides": []}',
            "aaa.json is damaged: config: Field required; found",
        ),
        ("aaa.1.json", "null", "aaa.1.json is damaged: it: Input should be a valid dictionary; found None"),
    ],
)
def test_a_damaged_record_fails_its_own_job(name: str, content: str, said: str, ledger: Ledger) -> None:
    ledger.add({"bbb": (["seed=2"], CONFIG)})
    (ledger.path / "jobs" / name).write_text(content, "utf-8")
    other, job = sorted(ledger.jobs(), key=lambda job: job.status, reverse=True)
    assert (other.identity, other.status) == ("bbb", "waiting")
    assert (job.identity, job.status, job.unended) == ("aaa", "damaged", False)
    assert str(job.cause).startswith(said)
    assert str(job.cause).endswith("; remove it to begin the job anew")
    assert [*GridJobs(ledger, ["aaa", "bbb"], retry=True).todo()] == ["bbb"]
    assert refused(ModelError, run_job, ledger, "aaa").what == job.cause


def test_a_missing_record_is_named(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no bbb\.json"):
        ledger.job("bbb")
    with pytest.raises(ModelError, match=r"there is no sweep\.json"):
        _ = Ledger(tmp_path).facts
