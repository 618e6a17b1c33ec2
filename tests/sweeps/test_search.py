"""A sweep that is a search: what is proposed, what its jobs report, and what a start that goes on counts."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from bunryu.config.compose import composing
from bunryu.config.overrides import Grid
from bunryu.errors import ConfigError
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.search import Search, space_of
from bunryu.sweeps.study import Options, open_study
from helpers.sweeping import SLOW, Driver, ledger_in, make_callbacks, runs_in, steps_logged, sweep, until


def test_the_space_in_hydras_grammar() -> None:
    def space(values: str) -> dict[str, BaseDistribution]:
        with composing() as loader:
            return space_of(Grid.parse(loader, ["epochs=1", f"seed={values}"], {}))

    for values, expected in {
        "a,'b c'": CategoricalDistribution(["a", "'b c'"]),
        "interval(1,8)": FloatDistribution(1, 8),
        "int(interval(1,8))": IntDistribution(1, 8),
        "tag(log, interval(1e-5, 1e-3))": FloatDistribution(1e-5, 1e-3, log=True),
        "tag(log, int(interval(1, 64)))": IntDistribution(1, 64, log=True),
        "range(1,10,3)": IntDistribution(1, 7, step=3),
        "tag(log, range(1,65))": IntDistribution(1, 64, log=True),
        "range(0,1,0.5)": CategoricalDistribution(["0.0", "0.5"]),
    }.items():
        assert space(values) == {"seed": expected}
    for values in ("interval(3,1)", "tag(log, interval(0, 1))", "range(5,1)"):
        with pytest.raises(ConfigError) as caught:
            space(values)
        assert caught.value.where == "seed"


SPACE = {"x": IntDistribution(1, 3)}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "s", {"swept": ["x"], "monitor": "min val/loss", "study": "s"})


def search(ledger: Ledger, n_trials: int, sampler: str = "random", retry: bool = True) -> Search:
    def add(values: Mapping[str, Any], number: int) -> str:
        name = f"x{values['x']}"
        ledger.add({name: ([f"x={values['x']}"], {})}, number)
        return name

    options = Options(sampler, n_trials, 7, None, 1)
    return Search(open_study(ledger, options, SPACE), ledger, SPACE, add, n_trials, retry)


def finish(ledger: Ledger, name: str, status: str = "finished") -> None:
    with ledger.claimed(ledger.job(name)) as attempt:
        attempt.end(status, metrics={"val/loss": 0.5} if status == "finished" else {})


def finish_all(searched: Search, status: str = "finished") -> list[str]:
    begun = []
    for name in searched.todo():
        begun.append(name)
        finish(searched.ledger, name, status)
        searched.ended(searched.ledger.job(name))
    return begun


def states(searched: Search) -> list[TrialState]:
    return [trial.state for trial in searched.study.get_trials()]


def test_values_that_were_tried_are_not_tried_again_and_earlier_trials_count(ledger: Ledger) -> None:
    searched = search(ledger, 6)
    begun = finish_all(searched)
    assert len(begun) == len(set(begun)) <= 3
    assert states(searched) == [TrialState.COMPLETE] * 6
    assert searched.study.best_value == 0.5
    assert searched.identities() == [job.identity for job in ledger.jobs()]
    assert list(search(ledger, 6).todo()) == []
    finish_all(more := search(ledger, 8))
    assert len(more.study.trials) == more.total == 8


def test_a_grid_ends_when_it_has_no_more_points(ledger: Ledger) -> None:
    assert sorted(finish_all(search(ledger, 3, "grid"))) == ["x1", "x2", "x3"]
    assert finish_all(search(ledger, 3, "grid")) == []


def test_the_study_learns_of_a_job_that_ended_meanwhile(ledger: Ledger) -> None:
    first = search(ledger, 1)
    name = next(first.todo())
    finish(ledger, name, "interrupted")
    first.ended(ledger.job(name))
    assert states(first) == [TrialState.RUNNING]
    assert next(search(ledger, 1).todo()) == name  # it goes on
    finish(ledger, name, "pruned")
    assert states(first) == [TrialState.RUNNING]
    assert list(search(ledger, 1).todo()) == []
    assert states(first) == [TrialState.PRUNED]


def test_another_trial_replaces_one_that_failed_before(ledger: Ledger) -> None:
    finish_all(search(ledger, 1), "failed")
    assert list(search(ledger, 1, retry=False).todo()) == []
    finish_all(again := search(ledger, 1))
    assert (states(again)[0], len(states(again))) == (TrialState.FAIL, 2)
    assert list(search(ledger, 1, retry=False).todo()) == []


def test_two_drivers_of_one_study_share_its_trials(ledger: Ledger) -> None:
    one, other = search(ledger, 3), search(ledger, 3)
    begun = [next(one.todo()), next(other.todo())]
    for name in dict.fromkeys(begun):
        finish(ledger, name)
        one.ended(ledger.job(name))
    finish_all(one)
    finish_all(other)
    assert states(one) == [TrialState.COMPLETE] * 3


def test_a_search_that_is_killed_goes_on_prunes_and_keeps_its_storage_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five good trials stand in the study: one that learns nothing is stopped after its first epoch."""
    make_callbacks(tmp_path / "package", monkeypatch)
    url = f"sqlite:///{tmp_path}/sesame.db"
    monkeypatch.setenv("A_STORAGE", url)
    out = tmp_path / "out"
    study = optuna.create_study(storage=url, study_name="s", direction="minimize")
    for _ in range(5):
        trial = study.ask()
        trial.report(0.001, 0)
        trial.set_user_attr("job", "elsewhere")
        study.tell(trial, 0.001)
    arguments = [
        "hydra.sweeper.strategy=optuna", "optimizer.lr=choice(1e-7)", "hydra.sweeper.n_trials=6",
        "hydra.sweeper.storage=${oc.env:A_STORAGE}", "sweep_name=s", "epochs=2",
        "checkpoint_every_minutes=0", *SLOW,
    ]  # fmt: skip
    driver = Driver(tmp_path / "log", lambda: sweep(out, *arguments))
    until(lambda: steps_logged(out) >= 2)
    assert driver.stop(signal.SIGKILL) == -signal.SIGKILL
    assert sweep(out, *arguments) == 0
    (job,) = ledger_in(out).jobs()
    assert (job.status, job.trial, job.attempt, len(runs_in(out))) == ("pruned", 5, 2, 1)
    assert job.cause == "pruned after epoch 1: other trials did better by then"
    assert (job.config["optimizer"]["lr"], len(study.trials)) == (1e-7, 6)
    pruned = study.trials[5]
    assert (pruned.state, list(pruned.intermediate_values)) == (TrialState.PRUNED, [0])
    assert "pruned       optimizer.lr=1e-07  pruned after epoch 1" in capsys.readouterr().out
    written = [path.read_text("utf-8", errors="replace") for path in out.rglob("*") if path.is_file()]
    assert [text for text in written if "sesame" in text] == []
    assert ledger_in(out).facts["storage"] == "${oc.env:A_STORAGE}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("max_seq_length=range(64,400)", "max_seq_length=399 is beyond the model's 300 positions"),
        ("model=choice(tiny,tinny)", "'model' has no option 'tinny'"),
        ("seed=choice(1,2) accelerator.devices=2", "a trial on several devices cannot be pruned"),
    ],
)
def test_a_search_that_could_come_to_what_cannot_work_is_refused_first(
    values: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path / "o", *values.split(), "hydra.sweeper.strategy=optuna") == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
