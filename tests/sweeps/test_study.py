"""Where a study is kept, how it samples and prunes."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from bunryu.errors import ConfigError
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.study import Options, open_study, trial_of

SPACE = {"a": IntDistribution(1, 3), "b": CategoricalDistribution(["x", "y"])}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "s", {"swept": ["a", "b"], "monitor": "min val/loss", "study": "s"})


def options(sampler: str = "random", storage: str | None = None, parallel: int = 1) -> Options:
    return Options(sampler, 4, 7, storage, parallel)


@pytest.mark.parametrize("where", ["journal", "sqlite"])
def test_a_study_is_opened_again_by_another_process(ledger: Ledger, where: str) -> None:
    storage = f"sqlite:///{ledger.path}/study.db" if where == "sqlite" else None
    study = open_study(ledger, options(storage=storage), SPACE)
    study.tell(study.ask(SPACE), 0.5)
    study.ask(SPACE)
    again = open_study(ledger, options(storage=storage), SPACE)
    assert [trial.state for trial in again.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert again.trials[0].params == study.trials[0].params
    kept = {path.name for path in ledger.path.iterdir() if path.is_file()}
    assert kept == {"sweep.json", "study.db" if where == "sqlite" else "study.journal"}


@pytest.mark.parametrize(
    ("monitor", "direction"), [("min val/loss", "MINIMIZE"), ("max val/accuracy", "MAXIMIZE")]
)
def test_the_monitor_says_which_way_is_better(tmp_path: Path, monitor: str, direction: str) -> None:
    ledger = Ledger.create(tmp_path / "s", {"monitor": monitor, "study": "s"})
    assert open_study(ledger, options(), SPACE).direction.name == direction


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_start_that_goes_on_proposes_other_values_than_the_first_and_each_is_repeatable(
    sampler: str, tmp_path: Path
) -> None:
    space = {"lr": FloatDistribution(1e-5, 1e-3, log=True)}

    def proposed(folder: Path) -> list[float]:
        ledger = Ledger.create(folder, {"monitor": "min val/loss", "study": "s"})
        found = []
        for _ in range(2):
            study = open_study(ledger, options(sampler), space)
            for _ in range(2):
                trial = study.ask(space)
                found.append(trial.params["lr"])
                study.tell(trial, trial.params["lr"])
        return found

    first = proposed(tmp_path / "a")
    assert len(set(first)) == 4
    assert proposed(tmp_path / "b") == first


def test_a_grid_of_a_study_has_all_combinations_and_ends(ledger: Ledger) -> None:
    study = open_study(ledger, options("grid"), SPACE)
    seen = []
    for _ in range(6):
        trial = study.ask(SPACE)
        seen.append((trial.params["a"], trial.params["b"]))
        study.tell(trial, 0.5)
    assert sorted(seen) == [(a, b) for a in (1, 2, 3) for b in ("x", "y")]


def test_a_grid_of_an_interval_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="values that can be counted") as caught:
        open_study(ledger, options("grid"), {"lr": FloatDistribution(1e-5, 1e-3)})
    assert caught.value.where == "lr"


@pytest.mark.parametrize("url", ["sqlite:////nowhere/study.db", "nosuch://host/db", "no url"])
def test_a_storage_that_cannot_be_used_is_named(ledger: Ledger, url: str) -> None:
    with pytest.raises(ConfigError, match="the study's storage cannot be used") as caught:
        open_study(ledger, options(storage=url), SPACE)
    assert caught.value.where == "hydra.sweeper.storage"


def report(study: optuna.Study, values: list[float]) -> None:
    trial = study.ask({})
    for step, value in enumerate(values):
        trial.report(value, step)
    study.tell(trial, values[-1])


@pytest.mark.parametrize(("pruner", "hopeless"), [("median", True), ("none", False), ("hyperband", False)])
def test_a_job_asks_its_studys_pruner(ledger: Ledger, pruner: str, hopeless: bool) -> None:
    study = open_study(ledger, options(), SPACE)
    for value in (0.1, 0.2, 0.3, 0.4, 0.5):  # the median pruner compares with five trials or more
        report(study, [value] * 3)
    params = study.ask(SPACE).params
    trial = trial_of(ledger, 5, None, pruner)
    trial.report(0.9, 0)
    assert bool(trial.should_prune()) is hopeless
    good = trial_of(ledger, study.ask({}).number, None, pruner)
    good.report(0.2, 0)
    assert not good.should_prune()
    bad = open_study(ledger, options(), SPACE).trials[5]  # as another process sees it
    assert (bad.intermediate_values, bad.params, bad.state) == ({0: 0.9}, params, TrialState.RUNNING)


def test_hyperband_stops_what_falls_behind(ledger: Ledger) -> None:
    """Whatever bracket a trial falls into, the worst of many is stopped before its last step."""
    study = open_study(ledger, options(), {})
    stopped = []
    for number in range(20):
        trial = trial_of(ledger, study.ask({}).number, None, "hyperband")
        for step in range(27):
            trial.report(float(number), step)
            if trial.should_prune():
                stopped.append(number)
                study.tell(trial.number, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial.number, float(number))
    assert 0 not in stopped
    assert len(stopped) >= 5
