"""A sweep from its command line to its closing table, and what the same command does the next time."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bunryu import cli
from bunryu.errors import BusyError
from bunryu.runs.run import Run
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.runner import archive, name_of, table
from helpers.sweeping import TINY, attempts, bomb, bombs, ledger_in, outcomes, runs_in, sweep

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


def test_a_sweep_is_run_once_grows_and_keeps_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sweep(folder: Path, *overrides: str) -> int:
        return cli.run(["train", "sweep=seeds", *TINY, f"output_root={folder}", *overrides])  # without -m

    assert sweep(tmp_path, "seed=1,2", "n_jobs=2") == 0
    first = capsys.readouterr().out
    ledger = ledger_in(tmp_path)
    assert ledger.facts == {
        "schema": 1, "name": ledger.path.name, "swept": ["seed"], "monitor": "min val/loss",
        "strategy": "grid",
    }  # fmt: skip
    assert re.search(r"\[2/2\]  \d  finished     seed=\d  val/loss 0\.\d{4}\n", first)
    assert [re.sub(r"0\.\d{4}", "_", line) for line in closing(first)] == [
        "0  finished     seed=1  val/loss _",
        "1  finished     seed=2  val/loss _",
    ]
    assert f"bunryu report {ledger.path}" in first
    made, before = runs_in(tmp_path), outcomes(tmp_path)
    assert len(made) == 2
    assert {Run(path).config["seed"] for path in made} == {1, 2}
    assert all(Run(job.run).manifest["overrides"] == job.overrides for job in ledger.jobs() if job.run)

    assert sweep(tmp_path, "seed=2,1,3", "logger=none", "keep_checkpoints=best") == 0
    grown = closing(capsys.readouterr().out)
    assert grown[:2] == closing(first)
    assert grown[2].startswith("2  finished     seed=3")
    assert len(set(runs_in(tmp_path)) - set(made)) == 1
    assert {key: value for key, value in outcomes(tmp_path).items() if key in before} == before
    assert set(attempts(tmp_path).values()) == {1}

    shutil.move(tmp_path, tmp_path.with_name("moved"))  # runs and sweep together
    moved = tmp_path.with_name("moved")
    assert sweep(moved, "seed=1,2,3") == 0  # nothing is left to do
    assert closing(capsys.readouterr().out) == grown
    assert len(runs_in(moved)) == 3
    shutil.move(moved, tmp_path)


def test_failures_are_shown_with_their_causes_and_tried_again_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bombs(tmp_path / "package", monkeypatch)
    fuse = tmp_path / "fuse"
    fuse.touch()
    out = tmp_path / "out"
    arguments = ["seed=1,2", *bomb(fuse), "sweep_name=my sweep"]
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
    (failed,) = (job for job in ledger.jobs() if job.status == "failed")
    assert (failed.cause, failed.attempt) == (cause, 1)
    assert Run(failed.run or Path()).manifest["status"] == "running"  # it could not say more
    assert f"its output: {ledger.log_of(failed.identity)}" in printed.out
    assert "run directory: " in ledger.log_of(failed.identity).read_text("utf-8")

    assert sweep(out, *arguments, "retry=none") == 1
    assert attempts(out)[failed.identity] == 1
    assert closing(capsys.readouterr().out) == closing(printed.out)

    fuse.unlink()
    assert sweep(out, *arguments) == 0
    assert sorted(attempts(out).values()) == [1, 2]
    assert len(runs_in(out)) == 2  # the failed one went on in its directory
    assert Run(failed.run or Path()).manifest["status"] == "finished"

    assert sweep(out, *arguments, "seed=1", "fresh=true") == 0
    kept = sorted(path.name for path in (out / "sweeps").iterdir())
    assert kept[0] == "my-sweep"
    assert re.fullmatch(r"my-sweep\.\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{6}", kept[1])
    assert len(Ledger(out / "sweeps" / kept[0]).jobs()) == 1
    aside = Ledger(out / "sweeps" / kept[1]).jobs()
    assert [job.status for job in aside] == ["finished", "finished"]
    assert [job.run for job in aside if not (job.run or Path()).is_dir()] == []
    assert len(runs_in(out)) == 3


def test_no_job_begins_after_a_failure_if_so_wished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "optimizer.lr=1e30,1e-3", "seed=1,2", "on_failure=stop") == 1
    table = closing(capsys.readouterr().out)
    assert [line.split()[:2] for line in table] == [
        ["0", "failed"], ["1", "waiting"], ["2", "waiting"], ["3", "waiting"],
    ]  # fmt: skip
    assert "the training loss is not finite" in table[0]
    assert len(runs_in(tmp_path)) == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["seed=1,2", "optimizer.lr=1e-3,-1"], "optimizer.lr"),
        (["model=tiny,tinny"], "model=tiny"),
        (["seed=1,2", "corpus=table", "corpus.train=nowhere.csv"], "nowhere.csv"),
        (["+callbacks.more._target_=pytorch_lightning.callbacks.Timer,os.getcwd"], "os.getcwd"),
        (["optimizer.lr=interval(1e-5,1e-3)"], "interval"),
        (["seed=1,2", "hydra.sweeper.strategy=no"], "grid or optuna"),
        (["hydra.sweeper.strategy=optuna", "seed=1"], "nothing to search"),
        (["seed=1,2", "n_jobs=0"], "n_jobs"),
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


def test_several_processes_that_were_started_together_sweep_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert sweep(tmp_path, "seed=1,2") == 2
    assert "a sweep starts its jobs' processes itself" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def ledger_with(path: Path, **facts: Any) -> Ledger:
    ledger = Ledger.create(path / "sweeps" / "s", {"swept": ["seed"], "monitor": "min val/loss"} | facts)
    ledger.add("aaa", ["epochs=1", "seed=1"], {})
    return ledger


def test_a_sweep_is_archived_unless_its_jobs_are_running(tmp_path: Path) -> None:
    ledger = ledger_with(tmp_path)
    (ledger.path / "sweep.json").unlink()  # killed before it was written
    with ledger.claimed(ledger.job("aaa")) as attempt:
        with pytest.raises(BusyError, match="jobs of this sweep are running"):
            archive(ledger)
        attempt.end("finished")
    assert ledger.path.is_dir()
    archive(ledger)
    (archived,) = (tmp_path / "sweeps").iterdir()
    assert archived.name.startswith("s.")


def test_the_table_shows_what_is_a_jobs_own(tmp_path: Path) -> None:
    ledger = ledger_with(tmp_path, swept=["seed", "optimizer.lr"])
    ledger.add("bbb", ["+optimizer.lr=0.01", "epochs=1", "seed=2"], {})
    with ledger.claimed(ledger.job("aaa")) as attempt:
        attempt.end("finished", metrics={"val/loss": 0.123456})
    with ledger.claimed(ledger.job("bbb")) as attempt:
        attempt.end("failed", "no luck")
    assert table(ledger.jobs(), ledger.facts) == [
        "    0  finished     seed=1                     val/loss 0.1235",
        "    1  failed       +optimizer.lr=0.01 seed=2  no luck",
    ]
