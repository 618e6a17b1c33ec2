"""A sweep's jobs begin in slots of this machine, or through whatever launcher Hydra has."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from bunryu.sweeps import job as sweep_job
from bunryu.sweeps import launchers
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.pool import Slot
from helpers.sweeping import ledger_in, replace_python, sweep


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "it's 실험, (a)" / "s", {"swept": []})
    made.add({name: ([], {"accelerator": {"devices": 1}}) for name in ("0e1", "123", "abc")})
    return made


def test_a_hydra_launcher_gets_so_many_jobs_at_once_and_is_told_where_they_are(ledger: Ledger) -> None:
    launched: list[Any] = []
    launcher: Any = SimpleNamespace(
        launch=lambda jobs, initial_job_idx: launched.append((jobs, initial_job_idx))
    )
    names = launchers.with_hydra(launcher, 2, ledger, iter(["0e1", "123", "abc"]))
    assert next(names) == "0e1"
    assert len(launched) == 1
    assert list(names) == ["123", "abc"]
    assert [(len(jobs), first) for jobs, first in launched] == [(2, 0), (1, 2)]
    parsed = [OverridesParser.create().parse_override(item) for jobs, _ in launched for (item,) in jobs]
    assert {item.key_or_group for item in parsed} == {"hydra.job.name"}
    assert [item.value() for item in parsed] == [f"{ledger.path}/{name}" for name in ("0e1", "123", "abc")]


def test_jobs_of_hydras_launchers_are_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_python(tmp_path, 'echo "$@"; kill -9 $$', monkeypatch)
    assert sweep(tmp_path / "out", "seed=1,2", "hydra/launcher=basic") == 1
    ledger = ledger_in(tmp_path / "out")
    for job in ledger.jobs():
        assert (job.status, job.attempt) == ("failed", 1)
        said = ledger.log_of(job.identity).read_text("utf-8")
        assert said == f"-m bunryu job {ledger.path} {job.identity}\n"


def test_slots_of_the_machine_are_shared_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    closed: list[tuple[str, int]] = []

    def in_slots(items: Any, work: Any, free: list[Slot], log: Any) -> Any:
        given.update(free=free, log=log("abc"))
        return ((item, 9) for item in items)

    def slots_with(accelerator: str) -> list[Slot]:
        config: Any = SimpleNamespace(n_jobs=2, accelerator=SimpleNamespace(name=accelerator, devices=1))
        assert list(launchers.in_pool(config, ledger, iter(["abc"]))) == ["abc"]
        assert given["log"] == ledger.log_of("abc")
        return list(given["free"])

    monkeypatch.setattr(launchers, "run_in_slots", in_slots)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setattr(sweep_job, "record_exit", lambda ledger, name, code: closed.append((name, code)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert slots_with("cpu") == [Slot(4), Slot(4)]
    assert slots_with("gpu") == slots_with("auto") == [Slot(4, "2"), Slot(4, "3")]
    assert closed[0] == ("abc", 9)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert slots_with("gpu") == [Slot(4), Slot(4)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,3")
    ledger.add({"two": ([], {"accelerator": {"devices": 2}})})  # devices are swept: room for all in each slot
    assert slots_with("gpu") == [Slot(4, "GPU-a,3")] * 2


def test_the_pool_is_for_the_ledger_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tmp_path, "hydra/sweeper=basic", "seed=1,2") == 2
    assert "the pool launches jobs of the ledger only" in capsys.readouterr().err
    assert not (tmp_path / "sample-tiny").exists()
