"""Where a study is kept, how it samples and prunes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import TrialState

from bunryu.errors import ConfigError
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.study import Options, most_trials, open_study, trial_of

SPACE: dict[str, BaseDistribution] = {"a": IntDistribution(1, 3), "b": CategoricalDistribution(["x", "y"])}


def ledger_at(folder: Path, monitor: str = "min val/loss") -> Ledger:
    return Ledger.create(folder, {"swept": [], "monitor": monitor, "study": "s"})


def options(sampler: str = "random", storage: str | None = None) -> Options:
    return Options(sampler, 9, 7, storage, 1)


def test_the_monitor_says_which_way_is_better(tmp_path: Path) -> None:
    for monitor, direction in {"min val/loss": "MINIMIZE", "max val/accuracy": "MAXIMIZE"}.items():
        ledger = ledger_at(tmp_path / direction, monitor)
        assert open_study(ledger, options(), SPACE).direction.name == direction


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_start_that_goes_on_proposes_other_values_than_the_first_and_each_is_repeatable(
    sampler: str, tmp_path: Path
) -> None:
    space = {"lr": FloatDistribution(1e-5, 1e-3, log=True)}

    def proposed(folder: Path) -> list[float]:
        ledger, found = ledger_at(folder), []
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


def test_a_grid_has_as_many_trials_as_points_and_none_of_an_interval() -> None:
    assert [most_trials(options(sampler), SPACE) for sampler in ("grid", "random")] == [6, 9]
    with pytest.raises(ConfigError, match="values that can be counted") as caught:
        most_trials(options("grid"), {"lr": FloatDistribution(1e-5, 1e-3)})
    assert caught.value.where == "lr"


@pytest.mark.parametrize("left", [0, 1, 20])
def test_a_line_that_was_left_half_written_is_cut_off_and_the_study_goes_on(
    left: int, tmp_path: Path
) -> None:
    ledger, journal = ledger_at(tmp_path), tmp_path / "study.journal"
    before, other = (open_study(ledger, options(), SPACE) for _ in range(2))
    before.tell(before.ask(SPACE), 0.5)
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[-21 : -21 + left])
    assert len(other.trials) == 1
    for study in (before, other, open_study(ledger, options(), SPACE)):
        study.tell(study.ask(SPACE), 0.5)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") and json.loads(line) for line in lines)
    assert [trial.value for study in (before, other) for trial in study.trials] == [0.5] * 8


@pytest.mark.parametrize("url", ["sqlite:////nowhere/study.db", "nosuch://host/db", "no url"])
def test_a_storage_that_cannot_be_used_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="the study's storage cannot be used") as caught:
        open_study(ledger_at(tmp_path), options(storage=url), SPACE)
    assert caught.value.where == "hydra.sweeper.storage"


def test_a_job_reports_to_its_own_trial_with_its_studys_pruner(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path)
    study = open_study(ledger, options(), SPACE)
    params = [study.ask(SPACE).params for _ in range(2)][1]
    for pruner, kind in {"median": MedianPruner, "hyperband": HyperbandPruner, "none": NopPruner}.items():
        trial = trial_of(ledger, 1, None, pruner)
        assert type(trial.study.pruner) is kind
    trial.report(0.9, 0)
    kept = open_study(ledger, options(), SPACE).trials[1]  # as another process sees it
    assert (kept.intermediate_values, kept.params, kept.state) == ({0: 0.9}, params, TrialState.RUNNING)
