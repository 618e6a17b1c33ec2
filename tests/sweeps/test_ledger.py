"""One record a job: who has it, what came out of it; safe when many ask at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bunryu.errors import ModelError
from bunryu.sweeps.attempts import read_record
from bunryu.sweeps.ledger import IRRELEVANT, Ledger, identity_of

CONFIG: dict[str, Any] = {
    "seed": 1,
    "optimizer": {"lr": 0.001},
    "output_root": "outputs",
    "logger": {},
    "cache_dir": None,
    "checkpoint_every_minutes": 5,
    "keep_checkpoints": "all",
    "overwrite_cache": False,
}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(
        tmp_path / "outputs" / "sweeps" / "s", {"swept": ["seed"], "monitor": "min val/loss"}
    )
    made.add("aaa", ["seed=1"], CONFIG)
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


def test_a_job_keeps_its_number_and_new_ones_follow(ledger: Ledger) -> None:
    ledger.add_all({name: ([f"seed={name}"], {}) for name in ("zzz", "aaa", "bbb")})
    ledger.add("aaa", ["seed=one"], {})
    ledger.add("abc", ["seed=3"], {**CONFIG, "seed": 3}, trial=5)
    assert [(job.number, job.identity, job.overrides, job.trial) for job in ledger.jobs()] == [
        (0, "aaa", ["seed=1"], None),
        (1, "zzz", ["seed=zzz"], None),
        (2, "bbb", ["seed=bbb"], None),
        (3, "abc", ["seed=3"], 5),
    ]
    assert ledger.job("aaa").config == CONFIG


@pytest.mark.parametrize("seen", ["bc", "bd", "cd", "d", ""])
def test_two_that_add_a_grid_at_once_give_each_job_its_place_in_it(
    seen: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has looked for jobs while the other added some, of which a folder's listing may miss any."""
    grid: dict[str, Any] = {name: ([f"seed={name}"], {}) for name in "bcdef"}
    ledger.add_all(dict(list(grid.items())[:3]))
    with monkeypatch.context() as context:
        context.setattr(Ledger, "identities", lambda self: ["aaa", *seen])
        ledger.add_all(grid)
    assert [(job.number, job.identity) for job in ledger.jobs()] == [
        (0, "aaa"), (1, "b"), (2, "c"), (3, "d"), (4, "e"), (5, "f"),
    ]  # fmt: skip


def test_a_job_goes_from_waiting_to_finished(ledger: Ledger) -> None:
    waiting = ledger.job("aaa")
    assert (waiting.status, waiting.attempt, waiting.run, waiting.metrics) == ("waiting", 0, None, {})
    run = ledger.path.parents[1] / "sample-tiny" / "run"
    with ledger.claimed(waiting) as attempt:
        attempt.record_run(run)
        running = ledger.job("aaa")
        assert (running.status, running.attempt, running.run, running.end) == ("running", 1, run, None)
        attempt.end("finished", metrics={"val/loss": 0.5})
    done = ledger.job("aaa")
    assert (done.status, done.metrics, done.cause) == ("finished", {"val/loss": 0.5}, None)
    assert done.start is not None
    assert done.end is not None


def test_of_many_processes_one_gets_a_job_and_another_once_it_is_killed(ledger: Ledger) -> None:
    code = (
        "import sys, pathlib; from bunryu.errors import BusyError\n"
        "from bunryu.sweeps.ledger import Ledger\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1])); job = ledger.job('aaa')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n"
        "    with ledger.claimed(job): print('mine', flush=True); sys.stdin.readline()\n"
        "except BusyError: print('busy', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(ledger.path)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline() for process in processes if process.stdout]
    assert sorted(answers) == ["busy\n"] * 3 + ["mine\n"]
    assert ledger.job("aaa").status == "running"
    winner = processes[answers.index("mine\n")]
    winner.kill()
    for process in processes:
        process.communicate()
    job = ledger.job("aaa")  # at once: on this machine it is known to be gone
    assert (job.status, job.attempt) == ("dead", 1)
    with ledger.claimed(job) as attempt:
        assert attempt.path.name == "aaa.2.json"
        assert (ledger.job("aaa").status, ledger.job("aaa").attempt) == ("running", 2)


def test_the_run_of_an_earlier_attempt_is_known_when_a_later_one_died_without(ledger: Ledger) -> None:
    run = ledger.path.parents[1] / "sample-tiny" / "run"
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.record_run(run)
        attempt.end("interrupted", "SIGTERM")
    with ledger.claimed(ledger.job("aaa")):
        pass
    job = ledger.job("aaa")
    assert (job.attempt, job.run, job.cause) == (2, run, None)


def test_sweep_and_runs_can_be_moved_together_and_a_relative_folder_leads_to_absolute_runs(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Ledger(Path("outputs/sweeps/s"))
    with relative.claimed(relative.job("aaa")) as attempt:
        attempt.record_run(Path("outputs/sample-tiny/run"))
        attempt.end("finished")
    assert read_record(attempt.path)["run"] == "../../sample-tiny/run"
    assert relative.job("aaa").run == tmp_path / "outputs" / "sample-tiny" / "run"
    shutil.move(tmp_path / "outputs", tmp_path / "else where")
    moved = Ledger(tmp_path / "else where" / "sweeps" / "s")
    assert moved.job("aaa").run == tmp_path / "else where" / "sample-tiny" / "run"


def test_the_death_of_a_process_that_could_not_record_it_is_recorded(ledger: Ledger) -> None:
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.record_run(ledger.path / "run")
    ledger.record_death(ledger.job("aaa"), "killed")
    job = ledger.job("aaa")
    assert (job.status, job.cause, job.attempt, job.run) == ("failed", "killed", 1, ledger.path / "run")
    assert job.end is not None


def test_submissions_are_noted_and_forgotten_and_are_no_jobs(ledger: Ledger) -> None:
    assert ledger.submission("aaa") is None
    ledger.note_submission("aaa", "12_3")
    assert ledger.submission("aaa") == "12_3"
    (ledger.path / "jobs" / ".bbb.json-01234567").write_text("{", "utf-8")  # what a killed writer leaves
    assert ledger.identities() == ["aaa"]
    ledger.note_submission("aaa", None)
    assert ledger.submission("aaa") is None


@pytest.mark.parametrize("content", ["{}", "", '{"number": 0}'])
def test_a_jobs_record_that_lacks_what_every_job_has_is_named(ledger: Ledger, content: str) -> None:
    path = ledger.path / "jobs" / "aaa.json"
    path.write_text(content, "utf-8")
    with pytest.raises(ModelError, match="the record is damaged") as caught:
        ledger.job("aaa")
    assert caught.value.where == str(path)


def test_damaged_and_missing_records_are_named(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such record"):
        ledger.job("bbb")
    with pytest.raises(ModelError, match="there is no such record"):
        _ = Ledger(tmp_path).facts
    attempt = ledger.path / "jobs" / "aaa.1.json"
    attempt.write_text("{", "utf-8")
    with pytest.raises(ModelError, match="the record is damaged") as caught:
        ledger.jobs()
    assert caught.value.where == str(attempt)
