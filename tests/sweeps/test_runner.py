"""A sweep from its command line to its closing table, and what the same command does the next time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.errors import BusyError, ConfigError, TrainingError
from bunryu.runs.run import Run
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.runner import GridJobs, archive, name_of, run, table
from bunryu.system import secrets
from helpers.refusing import refused
from helpers.sweeping import (
    SLOW,
    TINY,
    attempts,
    dying,
    ledger_in,
    make_callbacks,
    outcomes,
    runs_in,
    steps_logged,
    sweep,
)

CONFIG = {"seed": 1, "optimizer": {"name": "adamw", "lr": 0.1}, "model": {"name": "tiny"}, "output_root": "o"}


def closing(text: str) -> list[str]:
    """The closing table's lines."""
    tail = text.rpartition(" jobs, ")[2]
    return re.findall(r"^  +(\d+ .*?) *$", tail.partition("\nnext")[0], re.MULTILINE)


def test_the_name_says_what_is_swept_and_depends_on_all_else() -> None:
    swept = ["optimizer.lr", "seed"]
    name = name_of(CONFIG, swept)
    assert re.fullmatch(r"lr-seed-[0-9a-f]{8}", name)
    assert name_of(CONFIG, swept[::-1]) == name
    same = [{"seed": 2}, {"optimizer": {"name": "adamw", "lr": 0.2}}, {"output_root": "elsewhere"}]
    assert {name_of({**CONFIG, **change}, swept) for change in same} == {name}
    others = [{"optimizer": {"name": "sgd", "lr": 0.1}}, {"model": {"name": "small"}}]
    assert name not in [name_of({**CONFIG, **change}, swept) for change in others]
    assert name_of(CONFIG, ["optimizer"]) == name_of({**CONFIG, "optimizer": {}}, ["optimizer"])
    assert len(name_of(CONFIG, [f"model.architecture.{'x' * 30}{n}" for n in range(9)])) == 80


def test_a_sweep_is_run_once_and_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sweep(*overrides: str) -> list[str]:
        arguments = ["train", "sweep=seeds", *TINY, f"output_root={tmp_path}", *overrides]  # without -m
        assert cli.run(arguments) == 0
        return closing(capsys.readouterr().out)

    first = sweep("seed=1,2", "n_jobs=2")
    ledger = ledger_in(tmp_path)
    facts = {"swept": ["seed"], "monitor": "min val/loss", "strategy": "grid", "job_timeout_minutes": None}
    assert ledger.facts == {"schema": 1, "name": ledger.path.name, **facts}
    lines = [re.sub(r"0\.\d{4}", "_", line) for line in first]
    assert lines == [f"{number}  finished     seed={number + 1}  val/loss _" for number in range(2)]
    made, before = runs_in(tmp_path), outcomes(tmp_path)
    assert {Run(path).config["seed"] for path in made} == {1, 2}
    assert all(Run(job.run).manifest["overrides"] == job.overrides for job in ledger.jobs() if job.run)

    grown = sweep("seed=2,1,3", "keep_checkpoints=best")
    assert (grown[:2], grown[2].split()[:3]) == (first, ["2", "finished", "seed=3"])
    assert sweep("seed=1,2,3") == grown  # nothing is left to do
    assert len(set(runs_in(tmp_path)) - set(made)) == 1
    assert {key: value for key, value in outcomes(tmp_path).items() if key in before} == before
    assert attempts(tmp_path) == [1, 1, 1]


def test_failures_are_shown_with_their_causes_and_tried_again_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_callbacks(tmp_path / "package", monkeypatch)
    flag, out = tmp_path / "flag", tmp_path / "out"
    arguments = ["seed=1,2", *dying(flag), "sweep_name=my sweep"]
    assert sweep(out, *arguments) == 1
    printed = capsys.readouterr()
    cause = "killed by the system (signal 9): perhaps the memory ran out"
    ended, died = closing(printed.out)
    assert ended.startswith("0  finished     seed=1  val/loss ")
    assert died == f"1  failed       seed=2  {cause}"
    assert "1 of 2 jobs did not finish" in printed.err
    assert "the same command again tries what is missing" in printed.err
    ledger = ledger_in(out)
    assert ledger.path == out / "sweeps" / "my-sweep"
    assert f"bunryu report {ledger.path}" in printed.out
    assert re.search(r"\[1/2\]  0  finished     seed=1  val/loss 0\.\d{4}\n", printed.out)
    (failed,) = (job for job in ledger.jobs() if job.status == "failed")
    assert (failed.cause, failed.attempt) == (cause, 1)
    assert Run(failed.run or Path()).manifest["status"] == "running"  # it could not say more
    assert f"its output: {ledger.log_of(failed.identity)}" in printed.out
    assert "run directory: " in ledger.log_of(failed.identity).read_text("utf-8")

    assert sweep(out, *arguments, "retry=none") == 1
    assert attempts(out) == [1, 1]
    assert closing(capsys.readouterr().out) == [ended, died]

    flag.unlink()
    assert sweep(out, *arguments) == 0
    assert (attempts(out), len(runs_in(out))) == ([1, 2], 2)  # the failed one went on in its directory
    assert Run(failed.run or Path()).manifest["status"] == "finished"

    assert sweep(out, *arguments, "seed=1", "fresh=true") == 0
    kept, aside = sorted((out / "sweeps").iterdir())
    assert re.fullmatch(r"my-sweep\.\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{6}", aside.name)
    assert (kept.name, len(Ledger(kept).jobs()), len(runs_in(out))) == ("my-sweep", 1, 3)
    moved = [(job.status, (job.run or Path()).is_dir()) for job in Ledger(aside).jobs()]
    assert moved == [("finished", True)] * 2


def test_a_record_gets_no_variable_that_the_commands_config_does_not_have(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "s", {"swept": ["seed"], "monitor": "min val/loss"})
    ledger.add({"a": ([], {"model": {"name": "${oc.env:OF_JOB}"}})})
    error = refused(ConfigError, _launch_nothing, ledger)
    assert "its model.name asks for the environment variable OF_JOB," in str(error)
    assert error.fix == "fresh=true"
    secrets.remember("OF_JOB")  # as composing the command's own config does
    assert "1 of 1 jobs" in str(refused(TrainingError, _launch_nothing, ledger))


def _launch_nothing(ledger: Ledger) -> None:
    run(ledger, GridJobs(ledger, ["a"], True), lambda *_: iter([]), stop_on_failure=False)


def test_a_sweeps_job_has_so_many_minutes_and_a_single_run_is_refused_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_callbacks(tmp_path / "package", monkeypatch)
    assert sweep(tmp_path / "out", "seed=1", "epochs=20", *SLOW, "job_timeout_minutes=0.04") == 1
    cause = "it took longer than job_timeout_minutes"
    assert re.search(rf"  0  failed  +{cause}\n", capsys.readouterr().out)
    (job,) = ledger_in(tmp_path / "out").jobs()
    assert (job.status, Run(job.run or Path()).manifest["status"]) == ("failed", "running")
    assert 0 < steps_logged(tmp_path / "out") < 100

    assert cli.run(["train", *TINY, f"output_root={tmp_path}/one", "job_timeout_minutes=1"]) == 2
    assert "a sweep's jobs have it, not one run" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


def test_a_failure_may_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tmp_path, "optimizer.lr=1e30,1e-3", "seed=1", "on_failure=stop") == 1
    failed, waiting = closing(capsys.readouterr().out)
    assert (failed.split()[1], waiting.split()[1]) == ("failed", "waiting")
    assert "the training loss is not finite" in failed
    assert len(runs_in(tmp_path)) == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["seed=1,2", "optimizer.lr=1e-3,-1"], "optimizer.lr"),
        (["model=tiny,tinny"], "model=tiny"),
        (["seed=1,2", "corpus=table", "corpus.train=nowhere.csv"], "nowhere.csv"),
        (["+callbacks.more._target_=pytorch_lightning.callbacks.Timer,os.getcwd"], "os.getcwd"),
        (["seed=1,2", "hydra.sweeper.strategy=no"], "grid or optuna"),
        (["seed=1,2", "hydra/launcher=no"], "'hydra/launcher' has no option 'no'"),
        (["hydra.sweeper.strategy=optuna", "seed=1"], "nothing to search"),
    ],
)
def test_a_sweep_with_a_job_that_cannot_work_leaves_nothing(
    overrides: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert sweep(tmp_path / "out", *overrides) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == []


def test_a_sweep_is_archived_unless_jobs_are_running_and_has_a_table(tmp_path: Path) -> None:
    facts = {"swept": ["seed", "optimizer.lr"], "monitor": "min val/loss"}
    ledger = Ledger.create(tmp_path / "s", facts)
    ledger.add({"aaa": (["epochs=1", "seed=1"], {}), "bbb": (["+optimizer.lr=0.01", "seed=2"], {})})
    (ledger.path / "sweep.json").unlink()  # killed before it was written
    with ledger.claimed(ledger.job("aaa")) as attempt:
        with pytest.raises(BusyError, match="jobs of this sweep are running"):
            archive(ledger)
        attempt.end("finished", metrics={"val/loss": 0.123456})
    with ledger.claimed(ledger.job("bbb")) as attempt:
        attempt.end("failed", "no luck")
    assert table(ledger.jobs(), facts) == [
        "    0  finished     seed=1                     val/loss 0.1235",
        "    1  failed       +optimizer.lr=0.01 seed=2  no luck",
    ]
    archive(ledger)
    (archived,) = tmp_path.iterdir()
    assert archived.name.startswith("s.")
