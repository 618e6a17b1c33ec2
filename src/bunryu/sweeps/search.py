"""A sweep that is a search: Optuna proposes each next job from the results of the earlier ones."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bunryu.config.overrides import Grid
from bunryu.errors import ConfigError, first_line
from bunryu.sweeps.ledger import JobState, Ledger
from bunryu.sweeps.plan import Plan, check_configs, open_ledger
from bunryu.sweeps.study import Options, most_trials, open_study
from bunryu.system import ranks

ABANDONED = datetime.timedelta(minutes=1)  # a trial without a job for so long has lost its process
STATES = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
JOB = "job"  # the trial's attribute that names its job


def search_jobs(plan: Plan, options: Options, written: Mapping[str, Any]) -> Search:
    """A search's jobs; the ends of every key's values, and each of its choices, are checked.

    ``written`` is what jobs need to find the study, as it stands in the config. Raises ConfigError if jobs
    could not work, or there is nothing to search.
    """
    space = space_of(plan.grid)
    if not space:
        fix = "optimizer.lr='interval(1e-5, 1e-3)'"
        raise ConfigError("there is nothing to search", where="hydra.sweeper.strategy", fix=fix)
    if written["pruner"] != "none" and ranks.processes_for(plan.base["accelerator"]) > 1:
        what, fix = "a trial on several devices cannot be pruned", "accelerator.devices=1"
        raise ConfigError(what, where="hydra.sweeper.pruner", fix=f"hydra.sweeper.pruner=none, or {fix}")
    n_trials = most_trials(options, space)

    def overrides_of(values: Mapping[str, Any]) -> list[str]:
        return [*plan.fixed, *(f"{key}={value}" for key, value in values.items())]

    def add(values: Mapping[str, Any], number: int) -> str:
        identity, definition = plan.job(overrides_of(values))
        ledger.add({identity: definition}, number)
        return identity

    check_configs([plan.configs.prepare(overrides_of(values)) for values in _ends(space)], options.parallel)
    ledger = open_ledger(plan, {"strategy": options.sampler, "study": _study_name(plan), **written})
    study = open_study(ledger, options, space)
    return Search(study, ledger, space, add, n_trials, plan.master.retry == "failed")


def _study_name(plan: Plan) -> str:
    """The name the sweep's study has, or a new one: a database may hold one of an earlier sweep."""
    if plan.master.fresh:
        return f"{plan.folder.name}-{int(time.time())}"
    begun = (plan.folder / "sweep.json").is_file()
    earlier = Ledger(plan.folder).facts.get("study") if begun else None
    return earlier or plan.folder.name


def _ends(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Values of all keys: each key's ends or choices in turn, the others at their first."""
    values = {
        key: list(d.choices) if isinstance(d, CategoricalDistribution) else [d.low, d.high]  # type: ignore[attr-defined]
        for key, d in space.items()
    }
    first = {key: several[0] for key, several in values.items()}
    return ({**first, key: value} for key, several in values.items() for value in several)


def space_of(grid: Grid) -> dict[str, BaseDistribution]:
    """The values that each swept key may take; raises ConfigError for what Optuna cannot sample."""
    space = {}
    for override in grid.overrides:
        if override.is_sweep_override():
            key = override.get_key_element()
            try:
                space[key] = _distribution(override)
            except ValueError as error:
                raise ConfigError(f"{key}: {first_line(error)}", where=key) from error
    return space


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        if isinstance(sweep.start, int) and isinstance(sweep.end, int):
            return IntDistribution(sweep.start, sweep.end, log=log)
        assert sweep.start is not None and sweep.end is not None
        return FloatDistribution(sweep.start, sweep.end, log=log)
    if isinstance(sweep, RangeSweep) and isinstance(sweep.start, int) and isinstance(sweep.step, int):
        values = range(sweep.start, int(sweep.stop or 0), sweep.step)
        if not values:
            raise ValueError("the range is empty")
        return IntDistribution(values[0], values[-1], step=1 if log else sweep.step, log=log)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


@dataclass(frozen=True)
class Search:
    """The jobs of a study."""

    study: Study
    ledger: Ledger  # the sweep's
    space: Mapping[str, BaseDistribution]  # of each key its values
    add: Callable[[Mapping[str, Any], int], str]  # notes the job of these values and this trial; its identity
    total: int  # how many trials there will be
    retry: bool  # whether another trial takes the place of one that failed before this start

    @cached_property
    def _failed_before(self) -> set[int]:
        failed = self.study.get_trials(deepcopy=False, states=[TrialState.FAIL])
        return {trial.number for trial in failed} if self.retry else set()

    def todo(self) -> Iterator[str]:
        """Jobs of trials that were begun and not ended, then of new ones."""
        self._failed_before  # noqa: B018  as it was before the first trial of this start
        known = set(self.ledger.identities())
        for begun in self._trials():
            name = begun.user_attrs.get(JOB)
            if begun.state == TrialState.RUNNING and name in known:
                job = self.ledger.job(name)
                if job.unended:
                    yield name
                elif job.status != "running":  # it ended, and its sweep died before it told the study
                    self.ended(job)
        while (trial := self._ask()) is not None:
            name = self.add(trial.params, trial.number)
            trial.set_user_attr(JOB, name)
            job = self.ledger.job(name)
            if job.trial == trial.number:
                yield name
            else:  # the same values as an earlier trial's
                self._tell(job, trial.number)

    def ended(self, job: JobState) -> None:
        """Tell the study, unless the job was interrupted: its trial goes on another time."""
        if job.trial is not None and job.status != "interrupted":
            self._tell(job, job.trial)

    def identities(self) -> list[str]:
        """The jobs of all trials that count."""
        known = set(self.ledger.identities())
        named = [trial.user_attrs.get(JOB) for trial in self._trials()]
        return [name for name in dict.fromkeys(named) if name in known]

    def _ask(self) -> optuna.trial.Trial | None:
        """The next trial; None if there are enough."""
        if len(self._trials()) >= self.total:
            return None
        trial = self.study.ask(dict(self.space))
        if sum(other.number < trial.number for other in self._trials()) >= self.total:
            self.study.tell(trial, state=TrialState.FAIL)  # another machine asked for the last one
            return None
        return trial

    def _tell(self, job: JobState, number: int) -> None:
        metric = str(self.ledger.facts["monitor"]).split()[1]
        state = STATES.get(job.status, TrialState.FAIL)
        value = job.metrics[metric] if state == TrialState.COMPLETE else None
        self.study.tell(number, value, state=state, skip_if_finished=True)

    def _trials(self) -> list[FrozenTrial]:
        """Those that count: not what failed before, nor what its process left before it had a job."""
        now = datetime.datetime.now()
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.number not in self._failed_before
            and (
                JOB in trial.user_attrs
                or (trial.state == TrialState.RUNNING and now - (trial.datetime_start or now) < ABANDONED)
            )
        ]
