"""An Optuna study: where it is kept, how it samples and prunes."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bunryu.errors import ConfigError, first_line
from bunryu.sweeps.ledger import Ledger


@dataclass(frozen=True)
class Options:
    """How a search goes."""

    sampler: str  # tpe, random or grid
    n_trials: int  # in all, those of earlier starts counted
    seed: int  # of the sampler
    storage: str | None  # a URL of Optuna's; None for a journal in the sweep's folder
    parallel: int  # trials at once


def open_study(ledger: Ledger, options: Options, space: Mapping[str, BaseDistribution]) -> Study:
    """Begin the sweep's study, or go on with it; raises ConfigError if the storage cannot be used."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    facts = ledger.facts
    try:
        study = optuna.create_study(
            storage=_storage(ledger.path, options.storage),
            study_name=facts["study"],
            direction="minimize" if facts["monitor"].startswith("min") else "maximize",
            load_if_exists=True,
        )
    except Exception as error:  # whatever a database's driver raises
        what = f"the study's storage cannot be used: {type(error).__name__}: {first_line(error)}"
        fix = "a URL such as sqlite:///study.db, and its driver installed"
        raise ConfigError(what, where="hydra.sweeper.storage", fix=fix) from error
    study.sampler = _sampler(options, space, len(study.trials))
    return study


def trial_of(ledger: Ledger, number: int, storage: str | None, pruner: str) -> optuna.trial.Trial:
    """A trial for its own job's process to report to."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=ledger.facts["study"], storage=_storage(ledger.path, storage), pruner=_pruner(pruner)
    )
    return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def most_trials(options: Options, space: Mapping[str, BaseDistribution]) -> int:
    """How many trials there can be: of a grid at most its points; raises ConfigError for an interval."""
    if options.sampler != "grid":
        return options.n_trials
    return min(options.n_trials, math.prod(len(_values(key, each)) for key, each in space.items()))


class _Journal(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines, after cutting off one that its writer, which had the lock, has left half."""
        with get_lock_file(self._lock), open(self._file_path, "ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())
            file.flush()
            os.fsync(file.fileno())


class _GridSampler(optuna.samplers.GridSampler):
    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: Optuna's stops Optuna's own loop after the last point, and here there is none."""


def _storage(folder: Path, url: str | None) -> BaseStorage | str:
    return JournalStorage(_Journal(str(folder / "study.journal"))) if url is None else url


def _sampler(
    options: Options, space: Mapping[str, BaseDistribution], begun: int
) -> optuna.samplers.BaseSampler:
    seed = options.seed + begun  # a start that goes on does not propose again what the first one began with
    if options.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if options.sampler == "grid":
        return _GridSampler({key: _values(key, d) for key, d in space.items()}, seed=options.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=options.parallel > 1)


def _values(key: str, distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    fix = "choice(…), range(…), or hydra.sweeper.sampler=tpe"
    raise ConfigError("a grid needs values that can be counted", where=key, fix=fix)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner()
    return optuna.pruners.HyperbandPruner() if name == "hyperband" else optuna.pruners.NopPruner()
