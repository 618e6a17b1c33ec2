"""What command lines with several values come to, and that every shipped sweep composes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from optuna.distributions import CategoricalDistribution, FloatDistribution

from bunryu.config.compose import as_hydra_reads, composing
from bunryu.errors import ConfigError
from bunryu.keys import value_at
from bunryu.sweeps.ledger import identity_of
from bunryu.sweeps.plan import Plan, _check
from bunryu.sweeps.pool import Slot
from bunryu.sweeps.search import space_of
from bunryu.system.locations import conf_dir
from bunryu.training import accelerators, early_checks


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    with composing() as found:
        yield found


@pytest.mark.parametrize(("preset", "jobs"), [("lr_seed_length", 24), ("seeds", 5)])
def test_a_grid_is_all_combinations_of_its_values(loader: ConfigLoader, preset: str, jobs: int) -> None:
    plan = Plan.of(loader, [f"sweep={preset}"])
    assert plan.master.hydra.mode == RunMode.MULTIRUN  # without -m
    assert "sweep_name" not in plan.base
    assert (plan.count, len(set(map(tuple, plan.jobs)))) == (jobs, jobs)
    some = [*plan.jobs[:3], plan.jobs[-1]]
    assert len({identity_of(plan.configs.prepare(overrides)) for overrides in some}) == 4


@pytest.mark.parametrize("given", ["corpus=table corpus.train", "model=pretrained model.name"])
def test_what_has_no_default_can_be_swept_and_its_sweep_grows(given: str, loader: ConfigLoader) -> None:
    option, key = given.split()
    few, more = (Plan.of(loader, [option, f"{key}={values}"]) for values in ("a,b", "c,a,b"))
    assert few.folder == more.folder
    assert [value_at(few.configs.prepare(overrides), key) for overrides in few.jobs] == ["a", "b"]


def test_the_command_line_replaces_a_presets_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = tmp_path / "sweep" / "mine.yaml"
    preset.parent.mkdir()
    params = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n      epochs: 3,4\n"
    preset.write_text(f"# @package _global_\n{params}", "utf-8")
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path))
    with composing() as loader:
        plan = Plan.of(loader, ["sweep=mine", "epochs=9"])
        assert plan.grid.swept == ["seed"]
        jobs = [sorted(job) for job in plan.jobs]
        assert jobs == [["epochs=9", f"seed={seed}", "sweep=mine"] for seed in (1, 2)]


def test_the_search_looks_where_its_file_says(loader: ConfigLoader) -> None:
    presets = {path.stem for path in (conf_dir() / "sweep").glob("*.yaml")}
    assert presets == {"lr_seed_length", "seeds", "optuna_small"}  # two grids, and this search
    plan = Plan.of(loader, ["sweep=optuna_small"])
    assert (plan.trials, plan.base["model"]["name"]) == (plan.master.hydra.sweeper.n_trials, "small")
    assert space_of(plan.grid) == {
        "optimizer.lr": FloatDistribution(1e-4, 2e-3, log=True),
        "batch_size": CategoricalDistribution(["16", "32", "64"]),
        "model.architecture.hidden_dropout_prob": FloatDistribution(0.0, 0.3),
    }


def test_a_search_is_its_trials_times_its_costliest_job(loader: ConfigLoader) -> None:
    search = ["hydra.sweeper.strategy=optuna", "hydra.sweeper.n_trials=5"]
    space = ["optimizer.lr=tag(log, interval(1e-5, 1e-3))", "max_seq_length=32,64", "model=tiny,small"]
    plan = Plan.of(loader, as_hydra_reads([*search, *space]))
    assert (plan.count, plan.grid.swept) == (5, ["optimizer.lr", "max_seq_length", "model"])
    assert plan.jobs == [[*search, "optimizer.lr=0.001", "max_seq_length=64", "model=tiny"]]


@pytest.mark.parametrize("name", ["..", ""])
def test_a_sweeps_name_names_a_folder_of_its_own(loader: ConfigLoader, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name") as caught:
        _ = Plan.of(loader, ["seed=1,2", f"sweep_name='{name}'"]).folder
    assert caught.value.where == "sweep_name"


def test_jobs_of_other_seeds_are_checked_once(loader: ConfigLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[dict[str, Any]] = []
    monkeypatch.setattr(early_checks, "settle_and_check", lambda config: checked.append(config) or config)
    plan = Plan.of(loader, ["accelerator=cpu"])
    prepare = plan.configs.prepare
    other = prepare(["accelerator=cpu", "seed=5", "max_seq_length=7", "optimizer.lr=0.5"])
    third = prepare(["accelerator=cpu", "batch_size=auto"])
    assert _check([plan.base, other, third], Slot(), n_jobs=1) == 0
    assert checked == [other, third]


def test_jobs_take_turns_on_a_tpu(
    loader: ConfigLoader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accelerators, "available", lambda: {"tpu": 1, "cpu": 2})
    config = Plan.of(loader, ["accelerator=tpu"]).base
    assert [_check([config], Slot(), n_jobs=n_jobs) for n_jobs in (1, 2)] == [0, 2]
    assert capsys.readouterr().out.split()[-4:] == ["where:", "n_jobs", "fix:", "n_jobs=1"]


def test_a_presets_reference_to_the_environment_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep").mkdir()
    params = "hydra: {sweeper: {params: {corpus.name: 'a,${oc.env:CANARY}'}}}"
    (tmp_path / "sweep/mine.yaml").write_text(f"# @package _global_\n{params}\n", "utf-8")
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("CANARY", "sesame")
    with composing() as loader:
        plan = Plan.of(loader, ["sweep=mine"])
        _, (overrides, config) = plan.job(plan.jobs[1])
    assert "sesame" not in str(overrides)
    assert config["corpus"]["name"] == "${oc.env:CANARY}"
