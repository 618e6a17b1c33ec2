"""Every shipped sweep composes, to the jobs its file says."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.types import RunMode
from optuna.distributions import CategoricalDistribution, FloatDistribution

from bunryu.config.compose import composing
from bunryu.sweeps.ledger import identity_of
from bunryu.sweeps.plan import Plan, _check
from bunryu.sweeps.pool import Slot
from bunryu.sweeps.search import space_of
from bunryu.system.locations import conf_dir
from bunryu.training import accelerators

PRESETS = sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))


def planned(preset: str, *overrides: str) -> tuple[Any, Plan]:
    with composing() as loader:
        arguments = [f"sweep={preset}", *overrides]
        master = loader.load_configuration("train", arguments, run_mode=RunMode.MULTIRUN)
        plan = Plan.of(loader, master, arguments, dict(master.hydra.sweeper.params))
        assert "sweep_name" not in plan.base  # composed while Hydra is there
        return master, plan


def test_these_are_the_presets() -> None:
    assert PRESETS == ["lr_seed_length", "optuna_small", "seeds"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_sweep_without_m(preset: str) -> None:
    master, plan = planned(preset)
    assert master.hydra.mode == RunMode.MULTIRUN
    assert plan.folder.parent.name == "sweeps"


@pytest.mark.parametrize(("preset", "jobs"), [("lr_seed_length", 24), ("seeds", 5)])
def test_a_grid_is_as_many_different_jobs_as_its_values_give(preset: str, jobs: int) -> None:
    with composing() as loader:
        master = loader.load_configuration("train", [f"sweep={preset}"], run_mode=RunMode.MULTIRUN)
        plan = Plan.of(loader, master, [f"sweep={preset}"], dict(master.hydra.sweeper.params))
        names = {identity_of(plan.jobs.prepare(overrides)) for overrides in plan.grid.jobs()}
    assert len(names) == jobs


def test_a_preset_s_values_are_given_again_on_the_command_line() -> None:
    _, plan = planned("lr_seed_length", "optimizer.lr=1e-3,2e-3", "seed=5")
    assert plan.grid.swept == ["optimizer.lr", "max_seq_length"]
    assert len(plan.grid.jobs()) == 4


def test_the_search_looks_where_its_file_says() -> None:
    master, plan = planned("optuna_small")
    assert (master.hydra.sweeper.strategy, plan.base["model"]["name"]) == ("optuna", "small")
    assert space_of(plan.grid) == {
        "optimizer.lr": FloatDistribution(1e-4, 2e-3, log=True),
        "batch_size": CategoricalDistribution(["16", "32", "64"]),
        "model.architecture.hidden_dropout_prob": FloatDistribution(0.0, 0.3),
    }


def test_what_lightning_refuses_is_refused_before_the_first_job(capsys: pytest.CaptureFixture[str]) -> None:
    _, plan = planned("seeds", "accelerator=cpu")
    given = plan.base
    assert _check([given], Slot(), n_jobs=1) == 0
    trainer = {**given["trainer"], "precision": "exact"}
    assert _check([given, {**given, "trainer": trainer}], Slot(), n_jobs=1) == 2
    assert "Precision 'exact' is invalid" in capsys.readouterr().out
    assert _check([{**given, "trainer": {**given["trainer"], "num_nodes": 2}}], Slot(), n_jobs=1) == 2
    assert "one process was started, for 2 machines" in capsys.readouterr().out


def test_jobs_take_turns_on_a_tpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accelerators, "available", lambda: {"tpu": 1, "cpu": 2})
    _, plan = planned("seeds", "accelerator=tpu")
    assert _check([plan.base], Slot(), n_jobs=1) == 0
    assert _check([plan.base], Slot(), n_jobs=2) == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "one process at a time has a TPU"
    assert [line.split() for line in said[1:]] == [["where:", "n_jobs"], ["fix:", "n_jobs=1"]]
