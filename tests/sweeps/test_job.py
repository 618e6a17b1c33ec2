"""One job in its own process: begun, gone on with, closed; whatever happens its record says so."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from bunryu.commands import job
from bunryu.config.compose import composing
from bunryu.errors import BusyError, ConfigError, OutOfMemory
from bunryu.runs.run import Run
from bunryu.sweeps import job as sweep_job
from bunryu.sweeps.attempts import read_record, write_record
from bunryu.sweeps.ledger import JobState, Ledger
from bunryu.sweeps.plan import Plan
from bunryu.system.signals import Interrupted, Pruned
from bunryu.training import recipe
from helpers.sweeping import TINY, until


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    with composing() as loader:
        return Plan.of(loader, TINY).base


@pytest.fixture
def ledger(tmp_path: Path, config: dict[str, Any]) -> Ledger:
    facts = {"swept": ["seed"], "monitor": "min val/loss", "strategy": "grid"}
    made = Ledger.create(tmp_path / "out" / "sweeps" / "s", facts)
    made.add("aaa", ["seed=7"], {**config, "output_root": str(tmp_path / "out")})
    return made


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Run, dict[str, Any]]]:
    """Runs that were to be trained, none of which is; each ends well."""
    seen: list[tuple[Run, dict[str, Any]]] = []

    def pretended(run: Run, **keywords: Any) -> dict[str, Any]:
        seen.append((run, keywords))
        results = {"val/loss": 0.5, "best_checkpoint": "checkpoints/best.ckpt"}
        run.write_results(results)
        run.end("finished")
        return results

    monkeypatch.setattr(recipe, "execute", pretended)
    return seen


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def execute(run: Run, **keywords: Any) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(recipe, "execute", execute)


def test_a_job_makes_an_ordinary_run(ledger: Ledger, execute: list[Any]) -> None:
    assert sweep_job.run_job(ledger, "aaa", threads=3) == 0
    ((run, keywords),) = execute
    assert (keywords["resume"], keywords["threads"], keywords["callbacks"]) == (False, 3, [])
    done = ledger.job("aaa")
    assert (done.status, done.run, done.metrics) == ("finished", run.path, {"val/loss": 0.5})
    assert run.path.parent.parent == ledger.path.parents[1]
    for key in ("seed", "corpus", "model", "optimizer", "limit_rows"):
        assert run.config[key] == done.config[key]
    assert run.manifest["argv"] == ["bunryu", "train", "seed=7"]
    assert run.manifest["overrides"] == ["seed=7"]


def test_a_job_that_is_done_or_at_work_is_left_alone(ledger: Ledger, execute: list[Any]) -> None:
    assert sweep_job.run_job(ledger, "aaa") == 0
    assert sweep_job.run_job(ledger, "aaa") == 4
    ledger.add("bbb", [], {})
    with ledger.claimed(ledger.job("bbb")):
        assert sweep_job.run_job(ledger, "bbb") == 4
    assert len(execute) == 1
    assert [state.attempt for state in ledger.jobs()] == [1, 1]


def test_a_drawn_seed_is_the_runs(ledger: Ledger, execute: list[Any]) -> None:
    ledger.add("bbb", [], {**ledger.job("aaa").config, "seed": None})
    assert sweep_job.run_job(ledger, "bbb") == 0
    ((run, _),) = execute
    assert 0 <= run.config["seed"] == run.manifest["seed"] < 2**32
    assert ledger.job("bbb").config["seed"] is None


@pytest.mark.parametrize(
    ("error", "code", "status", "cause"),
    [
        (ConfigError("not so", where="here", fix="so"), 2, "failed", "not so"),
        (ConfigError("not so:\nbut so"), 2, "failed", "not so:"),
        (OutOfMemory("too much"), 3, "failed", "too much"),
        (BusyError("the run is held"), 4, "failed", "the run is held"),
        (ZeroDivisionError("one\ntwo"), 1, "failed", "ZeroDivisionError: one"),
        (Interrupted(signal.SIGTERM), 143, "interrupted", "SIGTERM"),
        (Interrupted(signal.SIGINT), 130, "interrupted", "SIGINT"),
        (Pruned("after epoch 1"), 0, "pruned", "after epoch 1"),
    ],
)
def test_how_a_job_ended_is_recorded(
    error: BaseException, code: int, status: str, cause: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, error)
    assert sweep_job.run_job(ledger, "aaa") == code
    done = ledger.job("aaa")
    assert (done.status, done.cause, done.metrics, done.attempt) == (status, cause, {}, 1)


def test_no_secret_is_recorded_or_said(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("A_SECRET", "sesame-open")
    ledger.add("bbb", [], {**ledger.job("aaa").config, "cache_dir": "${oc.env:A_SECRET}"})
    for error in (ConfigError("no sesame-open"), ValueError("no sesame-open")):
        raising(monkeypatch, error)
        sweep_job.run_job(ledger, "bbb")
        assert "sesame-open" not in str(ledger.job("bbb").cause)
        assert "${oc.env:A_SECRET}" in str(ledger.job("bbb").cause)
    printed = capsys.readouterr()
    assert "sesame-open" not in printed.out + printed.err
    assert "Traceback" in printed.err


def interrupted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> JobState:
    with monkeypatch.context() as context:
        raising(context, Interrupted(signal.SIGTERM))
        assert sweep_job.run_job(ledger, "aaa") == 143
    return ledger.job("aaa")


def test_a_job_goes_on_in_its_run_with_the_threads_it_began_with(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = interrupted(ledger, monkeypatch)
    seen: list[Any] = []

    def execute(run: Run, **keywords: Any) -> dict[str, Any]:
        seen.append((run.path, keywords["resume"], keywords["despite_changes"], keywords["threads"]))
        return {"val/loss": 0.5}

    monkeypatch.setattr(recipe, "execute", execute)
    assert sweep_job.run_job(ledger, "aaa", threads=3) == 0
    assert seen == [(before.run, True, False, None)]
    assert (ledger.job("aaa").attempt, ledger.job("aaa").run) == (2, before.run)


def test_a_run_that_is_finished_and_only_not_recorded_is_recorded(ledger: Ledger, execute: list[Any]) -> None:
    assert sweep_job.run_job(ledger, "aaa") == 0
    record = ledger.path / "jobs" / "aaa.1.json"
    facts = read_record(record)
    write_record(record, {**facts, "status": "interrupted", "metrics": {}})  # killed in that moment
    assert sweep_job.run_job(ledger, "aaa") == 0
    assert len(execute) == 1
    done = ledger.job("aaa")
    assert (done.status, done.attempt, done.metrics) == ("finished", 2, {"val/loss": 0.5})


def test_a_run_of_other_code_is_begun_anew(
    ledger: Ledger, execute: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = interrupted(ledger, monkeypatch)
    monkeypatch.setattr(sweep_job, "code_changes", lambda manifest: ["torch 1 -> 2"])
    assert sweep_job.run_job(ledger, "aaa") == 0
    ((run, keywords),) = execute
    assert run.path != before.run
    assert keywords["resume"] is False
    assert "begun anew, since what the job ran on has changed: torch 1 -> 2" in capsys.readouterr().out


def test_a_run_directory_that_was_never_filled_or_is_gone_is_begun_anew(
    ledger: Ledger, execute: list[Any]
) -> None:
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.record_run(ledger.path.parents[1] / "sample-tiny" / "gone")
        attempt.end("failed", "killed")
    assert sweep_job.run_job(ledger, "aaa") == 0
    assert ledger.job("aaa").run == execute[0][0].path


def test_a_target_that_may_not_be_called_is_refused_before_there_is_a_run(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ledger.job("aaa").config
    ledger.add("bbb", [], {**config, "callbacks": {"x": {"_target_": "os.getcwd"}}})
    assert sweep_job.run_job(ledger, "bbb") == 2
    assert "may not be called from a config" in str(ledger.job("bbb").cause)
    assert [path.name for path in ledger.path.parents[1].iterdir()] == ["sweeps"]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-9, "killed by the system (signal 9): perhaps the memory ran out"),
        (137, "killed by the system (signal 9): perhaps the memory ran out"),
        (-11, "its process died with exit code -11"),
    ],
)
def test_the_end_of_a_process_that_said_nothing_is_recorded(code: int, cause: str, ledger: Ledger) -> None:
    sweep_job.record_exit(ledger, "aaa", code)  # before it could even claim the job
    assert (ledger.job("aaa").status, ledger.job("aaa").cause) == ("failed", cause)
    ledger.add("bbb", [], {})
    with ledger.claimed(ledger.job("bbb")):
        pass
    record = ledger.path / "jobs" / "bbb.1.json"
    write_record(record, {**read_record(record), "pid": 2**22 + 1})  # more than there can be
    assert ledger.job("bbb").status == "dead"
    sweep_job.record_exit(ledger, "bbb", code)
    assert (ledger.job("bbb").status, ledger.job("bbb").cause) == ("failed", cause)


def test_what_a_process_has_recorded_stays(ledger: Ledger) -> None:
    sweep_job.record_exit(ledger, "aaa", BusyError.exit_code)  # it found the job taken
    assert (ledger.job("aaa").status, ledger.job("aaa").attempt) == ("waiting", 0)
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.end("failed", "the true cause")
    sweep_job.record_exit(ledger, "aaa", 1)
    assert ledger.job("aaa").cause == "the true cause"


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have launchers start this instead of ``bunryu job``."""
    script = tmp_path / "child.sh"
    script.write_text(f"#!/bin/sh\n{code}\n", "utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_launchers_start_a_child_whose_death_is_recorded(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(tmp_path, monkeypatch, 'echo "$@"; echo error >&2; kill -9 $$')
    assert sweep_job.run_in_child(str(ledger.path), "aaa") == -9
    said = ledger.log_of("aaa").read_text("utf-8").splitlines()
    assert said == [f"-m bunryu job {ledger.path} aaa", "error"]
    assert "signal 9" in str(ledger.job("aaa").cause)


def test_a_child_reads_the_end_of_its_input_only_when_its_launcher_is_gone(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(tmp_path, monkeypatch, f"exec 3<&0; (cat <&3; touch {tmp_path}/ended) & sleep 0.2; ls {tmp_path}")
    sweep_job.run_in_child(str(ledger.path), "aaa")
    assert "ended" not in ledger.log_of("aaa").read_text("utf-8").split()
    until((tmp_path / "ended").exists)


def test_bunryu_job_is_one_job(ledger: Ledger, execute: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert job.main([str(ledger.path), "aaa"]) == 0
    assert (ledger.job("aaa").status, len(execute)) == ("finished", 1)
