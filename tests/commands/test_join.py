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
from helpers.together import SLOW, as_torchrun, become, runs_in, train, witnesses


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What ``distributed.execute`` was called with, in its place."""
    calls: list[Any] = []
    monkeypatch.setattr(distributed, "execute", lambda run, **flags: calls.append((run.path, flags)))
    monkeypatch.setattr("bunryu.commands.join.stop_with_input", lambda: None)
    logger = logging.getLogger("bunryu")
    before = logger.level
    yield calls
    logger.setLevel(before)


def test_it_executes_the_run_as_it_is_told(trained: Run, executed: list[Any], tmp_path: Path) -> None:
    for flags in ([], ["--resume"], ["--resume", "--despite-changes"]):
        assert cli.run(["join", str(trained.path), *flags]) == 0
        told = {"resume": "--resume" in flags, "despite_changes": "--despite-changes" in flags}
        assert executed.pop() == (trained.path, told)
    assert cli.run(["join", str(tmp_path)]) == 2
    assert executed == []


@pytest.mark.parametrize(("rank", "level"), [(0, logging.INFO), (1, logging.ERROR)])
def test_one_process_speaks(
    rank: int, level: int, trained: Run, executed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    become(as_torchrun(rank, 2, 1), monkeypatch)
    assert cli.run(["join", str(trained.path)]) == 0
    assert logging.getLogger("bunryu").level == level


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
    manifest = Run(path).manifest
    assert (manifest["status"], manifest["exit_reason"]) == ("interrupted", "SIGTERM")
    assert (path / "checkpoints" / "last.ckpt").is_file()
