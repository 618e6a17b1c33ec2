"""A sweep's jobs begin in slots of this machine, or through whatever launcher Hydra has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from bunryu.sweeps import job as sweep_job
from bunryu.sweeps import launchers
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.pool import Slot
from helpers.sweeping import sweep
from hydra_plugins.bunryu.pool_launcher import PoolLauncher


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "it's 실험, (a)" / "s", {"swept": []})
    for identity in ("0e1", "123", "abc"):
        made.add(identity, [], {"accelerator": {"devices": 1}})
    return made


class Noting:
    """A Hydra launcher that does nothing."""

    def __init__(self) -> None:
        self.launched: list[tuple[Sequence[Sequence[str]], int]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        self.launched.append((jobs, initial_job_idx))


def test_a_hydra_launcher_gets_so_many_jobs_at_once_and_is_told_where_they_are(ledger: Ledger) -> None:
    launcher = Noting()
    names = launchers.with_hydra(launcher, 2, ledger, iter(["0e1", "123", "abc"]))  # type: ignore[arg-type]
    assert next(names) == "0e1"
    assert len(launcher.launched) == 1
    assert list(names) == ["123", "abc"]
    assert [(len(jobs), first) for jobs, first in launcher.launched] == [(2, 0), (1, 2)]
    parsed = [
        {item.key_or_group: item.value() for item in OverridesParser.create().parse_overrides(list(job))}
        for jobs, _ in launcher.launched
        for job in jobs
    ]
    assert [job["hydra.job.name"] for job in parsed] == ["0e1", "123", "abc"]  # text, not numbers
    assert {job["hydra.sweep.dir"] for job in parsed} == {str(ledger.path)}


def test_slots_of_the_machine_are_shared_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def in_slots(items: Any, work: Any, free: list[Slot], log: Any) -> Any:
        given.update(free=free, log=log("abc"))
        return ((item, 9) for item in items)

    closed: list[tuple[str, int]] = []
    monkeypatch.setattr(launchers, "run_in_slots", in_slots)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setattr(sweep_job, "record_exit", lambda ledger, name, code: closed.append((name, code)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    for accelerator, expected in (
        ("gpu", [Slot(4, "2"), Slot(4, "3")]),
        ("auto", [Slot(4, "2"), Slot(4, "3")]),
        ("cpu", [Slot(4), Slot(4)]),
    ):
        config: Any = SimpleNamespace(n_jobs=2, accelerator=SimpleNamespace(name=accelerator, devices=1))
        assert list(launchers.in_pool(config, ledger, iter(["abc"]))) == ["abc"]
        assert given == {"free": expected, "log": ledger.log_of("abc")}
    assert closed == [("abc", 9)] * 3
    ledger.add("two", [], {"accelerator": {"devices": 2}})  # devices are swept: each slot has room for all
    config = SimpleNamespace(n_jobs=2, accelerator=SimpleNamespace(name="gpu", devices=1))
    assert list(launchers.in_pool(config, ledger, iter(["two"]))) == ["two"]
    assert given["free"] == [Slot(4, "2,3"), Slot(4, "2,3")]


@pytest.mark.parametrize(
    ("visible", "cards"), [("", []), ("-1", []), ("0", ["0"]), ("GPU-a, 3", ["GPU-a", "3"])]
)
def test_graphics_cards_are_those_that_are_visible(
    visible: str, cards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launchers.graphics_cards() == cards


def test_the_launcher_decides_how_jobs_begin() -> None:
    config: Any = SimpleNamespace(n_jobs=1)
    assert launchers.launch_with(PoolLauncher(), config, 1).func is launchers.in_pool  # type: ignore[attr-defined]
    through = launchers.launch_with(Noting(), config, 3)  # type: ignore[arg-type]
    assert (through.func, through.args[1:]) == (launchers.with_hydra, (3,))  # type: ignore[attr-defined]


def test_the_pool_is_for_the_ledger_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tmp_path, "hydra/sweeper=basic", "seed=1,2") == 2
    said = capsys.readouterr().err
    assert "the pool launches jobs of the ledger only" in said
    assert "hydra/launcher=basic" in said
    assert not (tmp_path / "sample-tiny").exists()
