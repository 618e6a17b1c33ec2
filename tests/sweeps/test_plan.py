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
from bunryu.sweeps.ledger import identity_of
from bunryu.sweeps.plan import Plan, _check
from bunryu.sweeps.pool import Slot
from bunryu.sweeps.search import space_of
from bunryu.system.locations import conf_dir
from bunryu.training import accelerators, early_checks

PRESETS = sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    with composing() as found:
        yield found


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    with composing() as found:
        return Plan.of(found, ["accelerator=cpu"]).base


def test_these_are_the_presets() -> None:
    assert PRESETS == ["lr_seed_length", "optuna_small", "seeds"]


@pytest.mark.parametrize(("preset", "jobs"), [("lr_seed_length", 24), ("seeds", 5)])
def test_a_grid_is_as_many_different_jobs_as_its_values_give(
    loader: ConfigLoader, preset: str, jobs: int
) -> None:
    plan = Plan.of(loader, [f"sweep={preset}"])
    assert plan.master.hydra.mode == RunMode.MULTIRUN  # without -m
    assert plan.folder.parent.name == "sweeps"
    assert "sweep_name" not in plan.base
    assert (plan.count, len(set(map(tuple, plan.jobs)))) == (jobs, jobs)
    some = [*plan.jobs[:3], plan.jobs[-1]]
    assert len({identity_of(plan.configs.prepare(overrides)) for overrides in some}) == 4


def test_a_preset_s_values_are_given_again_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tmp_path / "sweep" / "mine.yaml"
    preset.parent.mkdir()
    params = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n      epochs: 3,4\n"
    preset.write_text(f"# @package _global_\n{params}", "utf-8")
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path))
    with composing() as loader:
        plan = Plan.of(loader, ["sweep=mine", "epochs=9"])
        assert plan.grid.swept == ["seed"]
        assert [sorted(job) for job in plan.jobs] == [
            ["epochs=9", "seed=1", "sweep=mine"],
            ["epochs=9", "seed=2", "sweep=mine"],
        ]


def test_the_search_looks_where_its_file_says(loader: ConfigLoader) -> None:
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


def test_an_interval_is_no_grid(loader: ConfigLoader) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr is an interval"):
        _ = Plan.of(loader, ["optimizer.lr=interval(1e-5, 1e-3)"]).jobs


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_a_sweeps_name_names_a_folder_of_its_own(loader: ConfigLoader, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name") as caught:
        _ = Plan.of(loader, ["seed=1,2", f"sweep_name='{name}'"]).folder
    assert caught.value.where == "sweep_name"


@pytest.mark.parametrize(
    ("node", "wrong", "said"),
    [
        ("trainer", {"precision": "exact"}, "Precision 'exact' is invalid"),
        ("trainer", {"num_nodes": 2}, "one process was started, for 2 machines"),
        ("optimizer", {"betas": [2.0, 0.9]}, "Invalid beta parameter"),
        ("callbacks", {"more": {"_target_": "os.getcwd"}}, "may not be called from a config"),
    ],
)
def test_what_a_run_would_refuse_is_refused_before_the_first_job(
    node: str, wrong: dict[str, Any], said: str, base: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _check([base, {**base, node: {**base[node], **wrong}}], Slot(), n_jobs=1) == 2
    assert said in capsys.readouterr().out


def test_jobs_that_differ_in_seed_rate_and_length_alone_are_checked_once(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[dict[str, Any]] = []
    monkeypatch.setattr(early_checks, "settle_and_check", lambda config: checked.append(config) or config)
    with composing() as loader:
        prepare = Plan.of(loader, ["accelerator=cpu"]).configs.prepare
        other = prepare(["accelerator=cpu", "seed=5", "max_seq_length=7", "optimizer.lr=0.5"])
        third = prepare(["accelerator=cpu", "batch_size=auto"])
    assert _check([base, other, third], Slot(), n_jobs=1) == 0
    assert checked == [other, third]


def test_jobs_take_turns_on_a_tpu(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accelerators, "available", lambda: {"tpu": 1, "cpu": 2})
    with composing() as loader:
        config = Plan.of(loader, ["accelerator=tpu"]).base
    assert _check([config], Slot(), n_jobs=1) == 0
    assert _check([config], Slot(), n_jobs=2) == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "one process at a time has a TPU"
    assert [line.split() for line in said[1:]] == [["where:", "n_jobs"], ["fix:", "n_jobs=1"]]
