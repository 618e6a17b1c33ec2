"""``bunryu join``: executes a prepared run, quietly but for the first process, and ends with its input."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.training import distributed
from helpers.killing import Fork, die
from helpers.sweeping import until
from helpers.together import SLOW, alone, as_torchrun, runs_in, train, witnesses


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ``distributed.execute`` was called with, in its place."""
    calls: list[Any] = []
    monkeypatch.setattr(distributed, "execute", lambda run, **flags: calls.append((run.path, flags)))
    monkeypatch.setattr("bunryu.commands.join.stop_with_input", lambda: None)
    return calls


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    logger = logging.getLogger("bunryu")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("flags", [[], ["--resume"], ["--resume", "--despite-changes"]])
def test_it_executes_the_run_as_it_is_told(flags: list[str], trained: Run, executed: list[Any]) -> None:
    assert cli.run(["join", str(trained.path), *flags]) == 0
    told = {"resume": "--resume" in flags, "despite_changes": "--despite-changes" in flags}
    assert executed == [(trained.path, told)]


@pytest.mark.parametrize(("rank", "level"), [(0, logging.INFO), (1, logging.ERROR)])
def test_one_process_speaks(
    rank: int, level: int, trained: Run, executed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in as_torchrun(rank, 2, 1).items():
        monkeypatch.setenv(name, value)
    assert cli.run(["join", str(trained.path)]) == 0
    assert logging.getLogger("bunryu").level == level


def test_a_folder_that_is_no_run(
    executed: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["join", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert executed == []


@pytest.mark.usefixtures("warm")
def test_it_stops_with_a_checkpoint_when_the_process_that_started_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witnesses(tmp_path / "package", monkeypatch)

    def prepare() -> int:
        monkeypatch.setattr(distributed, "execute", lambda *arguments, **flags: die())
        return cli.run(train(tmp_path, *SLOW))

    assert Fork(tmp_path / "prepare.log", prepare).code() == -signal.SIGKILL
    (path,) = runs_in(tmp_path)
    read, write = os.pipe()

    def work() -> int:
        os.dup2(read, 0)
        os.close(write)
        return cli.run(["join", str(path)])

    fork = Fork(tmp_path / "console.log", work)
    os.close(read)
    until(lambda: (path / "metrics.csv").read_text("utf-8").count(",train/loss,") >= 2)
    os.close(write)
    assert fork.code() == 143, fork.said()
    run = Run(path)
    assert (run.manifest["status"], run.manifest["exit_reason"]) == ("interrupted", "SIGTERM")
    assert (path / "checkpoints" / "last.ckpt").is_file()
    resumed = alone(tmp_path, "resume", str(path))
    assert resumed.code() == 0, resumed.said()
    assert run.manifest["status"] == "finished"
