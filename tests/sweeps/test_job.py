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
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.plan import Plan
from bunryu.system import secrets
from bunryu.system.signals import Interrupted, Pruned
from bunryu.training import recipe
from helpers.sweeping import TINY, replace_python, until

STOPPED = Interrupted(signal.SIGTERM)
KILLED = "killed by the system (signal 9): perhaps the memory ran out"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    with composing() as loader:
        return Plan.of(loader, TINY).base


@pytest.fixture
def ledger(tmp_path: Path, config: dict[str, Any]) -> Ledger:
    facts = {"swept": ["seed"], "monitor": "min val/loss", "strategy": "grid"}
    made = Ledger.create(tmp_path / "out" / "sweeps" / "s", facts)
    config = {**config, "output_root": str(tmp_path / "out"), "cache_dir": "${oc.env:A_SECRET,null}"}
    made.add({"aaa": (["seed=7"], config), "bbb": ([], {**config, "seed": None})})
    return made


class Recipe:
    """Stands for the recipe: trains nothing, and raises an error or ends well."""

    def __init__(self) -> None:
        self.seen: list[tuple[Run, dict[str, Any]]] = []
        self.error: BaseException | None = None

    def execute(self, run: Run, **keywords: Any) -> dict[str, Any]:
        self.seen.append((run, keywords))
        if self.error is not None:
            raise self.error
        results = {"val/loss": 0.5, "best_checkpoint": "checkpoints/best.ckpt"}
        run.write_results(results)
        run.end("finished")
        return results


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    made = Recipe()
    monkeypatch.setattr(recipe, "execute", made.execute)
    return made


def test_a_job_makes_an_ordinary_run_once(ledger: Ledger, fake: Recipe) -> None:
    assert sweep_job.run_job(ledger, "aaa", threads=3) == 0
    ((run, keywords),) = fake.seen
    assert (keywords["resume"], keywords["threads"], keywords["callbacks"]) == (False, 3, [])
    done = ledger.job("aaa")
    assert (done.status, done.run, done.metrics) == ("finished", run.path, {"val/loss": 0.5})
    assert run.path.parent.parent == ledger.path.parents[1]
    for key in ("seed", "corpus", "model", "optimizer", "limit_rows"):
        assert run.config[key] == done.config[key]
    assert run.manifest["argv"] == ["bunryu", "train", "seed=7"]
    assert sweep_job.run_job(ledger, "aaa") == 4
    with ledger.claimed(ledger.job("bbb")):
        assert sweep_job.run_job(ledger, "bbb") == 4
    assert len(fake.seen) == 1


def test_bunryu_job_is_one_job(ledger: Ledger, fake: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    config = {**ledger.job("aaa").config, "callbacks": {"x": {"_target_": "os.getcwd"}}}
    ledger.add({"ccc": ([], config)})
    assert job.main([str(ledger.path), "ccc"]) == 2
    assert "may not be called from a config" in str(ledger.job("ccc").cause)
    assert [path.name for path in ledger.path.parents[1].iterdir()] == ["sweeps"]  # there is no run
    assert job.main([str(ledger.path), "bbb"]) == 0
    ((run, _),) = fake.seen
    assert 0 <= run.config["seed"] == run.manifest["seed"] < 2**32  # it is drawn
    assert (ledger.job("bbb").status, ledger.job("bbb").config["seed"]) == ("finished", None)


@pytest.mark.parametrize(
    ("error", "code", "status", "cause"),
    [
        (ConfigError("not so:\nbut so", where="here", fix="so"), 2, "failed", "not so:"),
        (OutOfMemory("too much"), 3, "failed", "too much"),
        (BusyError("the run is held"), 4, "interrupted", "the run is held"),
        (ZeroDivisionError("one\ntwo"), 1, "failed", "ZeroDivisionError: one"),
        (STOPPED, 143, "interrupted", "SIGTERM"),
        (Pruned("after epoch 1"), 0, "pruned", "after epoch 1"),
    ],
)
def test_how_a_job_ended_is_recorded(
    error: BaseException, code: int, status: str, cause: str, ledger: Ledger, fake: Recipe
) -> None:
    fake.error = error
    assert sweep_job.run_job(ledger, "aaa") == code
    done = ledger.job("aaa")
    assert (done.status, done.cause, done.metrics, done.attempt) == (status, cause, {}, 1)


def test_no_secret_is_recorded_or_said(
    ledger: Ledger, fake: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("A_SECRET", "sesame-open")
    secrets.mask_streams(sys.stdout, sys.stderr)
    for fake.error in (ConfigError("no sesame-open"), ValueError("no sesame-open")):
        sweep_job.run_job(ledger, "bbb")
        assert "sesame-open" not in str(ledger.job("bbb").cause)
        assert "${oc.env:A_SECRET}" in str(ledger.job("bbb").cause)
    printed = capsys.readouterr()
    assert "sesame-open" not in printed.out + printed.err
    assert "Traceback" in printed.err


def test_an_earlier_run_gets_no_variable_that_its_job_does_not_have(ledger: Ledger, fake: Recipe) -> None:
    fake.error = STOPPED
    sweep_job.run_job(ledger, "aaa")
    path = fake.seen[0][0].path / "config.yaml"
    path.write_text(path.read_text("utf-8") + "token: ${oc.env:A_TOKEN,x}\n", "utf-8")
    assert sweep_job.run_job(ledger, "aaa") == 2
    assert (ledger.job("aaa").cause or "").startswith("its token asks for the environment variable A_TOKEN,")
    assert len(fake.seen) == 1


def test_a_job_goes_on_in_its_run_with_its_threads(ledger: Ledger, fake: Recipe) -> None:
    fake.error = STOPPED
    assert sweep_job.run_job(ledger, "aaa") == 143
    fake.error = None
    assert sweep_job.run_job(ledger, "aaa", threads=3) == 0
    (before, _), (run, keywords) = fake.seen
    assert (run.path, ledger.job("aaa").run) == (before.path, before.path)
    assert [keywords[key] for key in ("resume", "despite_changes", "threads")] == [True, False, None]

    record = ledger.path / "jobs" / "aaa.2.json"
    write_record(record, {**read_record(record), "status": "interrupted", "metrics": {}})  # killed just then
    assert sweep_job.run_job(ledger, "aaa") == 0
    assert len(fake.seen) == 2
    done = ledger.job("aaa")
    assert (done.status, done.attempt, done.metrics) == ("finished", 3, {"val/loss": 0.5})


def test_a_job_begins_anew_if_the_code_has_changed_or_its_run_was_never_filled(
    ledger: Ledger, fake: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.record_run(ledger.path.parents[1] / "sample-tiny" / "gone")
        attempt.end("failed", "killed")
    fake.error = STOPPED
    assert sweep_job.run_job(ledger, "aaa") == 143
    fake.error = None
    monkeypatch.setattr(sweep_job, "code_changes", lambda manifest: ["torch 1 -> 2"])
    assert sweep_job.run_job(ledger, "aaa") == 0
    (second, _), (third, keywords) = fake.seen
    assert (third.path != second.path, keywords["resume"]) == (True, False)
    assert "begun anew, since what the job ran on has changed: torch 1 -> 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-9, KILLED),
        (137, KILLED),
        (-11, "its process died with exit code -11"),
        (-signal.SIGALRM, "it took longer than job_timeout_minutes"),
        (-signal.SIGINT, "killed after a second Ctrl-C"),
    ],
)
def test_the_end_of_a_process_that_said_nothing_is_recorded(code: int, cause: str, ledger: Ledger) -> None:
    sweep_job.record_exit(ledger, "aaa", BusyError.exit_code)  # it found the job taken
    assert (ledger.job("aaa").status, ledger.job("aaa").attempt) == ("waiting", 0)
    sweep_job.record_exit(ledger, "aaa", code)  # before it could even claim the job
    assert (ledger.job("aaa").status, ledger.job("aaa").cause) == ("failed", cause)
    sweep_job.record_exit(ledger, "aaa", 1)
    assert ledger.job("aaa").cause == cause  # what is recorded stays

    with ledger.claimed(ledger.job("aaa")):
        pass
    record = ledger.path / "jobs" / "aaa.2.json"
    write_record(record, {**read_record(record), "pid": 2**22 + 1})  # more than there can be
    assert ledger.job("aaa").status == "dead"
    sweep_job.record_exit(ledger, "aaa", code)
    assert (ledger.job("aaa").status, ledger.job("aaa").cause) == ("failed", cause)


def test_launchers_start_a_child(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = f"exec 3<&0; (cat <&3; touch {tmp_path}/ended) & sleep 0.2; test -f {tmp_path}/ended && echo ended"
    replace_python(tmp_path, f'echo "$@"; echo error >&2; {wait}; kill -9 $$', monkeypatch)
    assert sweep_job.run_in_child(str(ledger.path), "aaa") == -9
    said = ledger.log_of("aaa").read_text("utf-8").splitlines()
    assert said == [f"-m bunryu job {ledger.path} aaa", "error"]
    assert ledger.job("aaa").cause == KILLED
    until((tmp_path / "ended").exists)
