"""``hydra/sweeper=ledger``: a sweep whose jobs have records, so that none is lost and none is done twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

CHOICES = {
    "strategy": ("grid", "optuna"),
    "sampler": ("tpe", "random", "grid"),
    "pruner": ("median", "hyperband", "none"),
}


class LedgerSweeper(Sweeper):
    """Runs what is missing of a sweep.

    Args:
        strategy: grid, all combinations, or optuna, a search.
        params: a preset's keys, each with its values as the command line would have them.
        n_trials: of a search in all, those of earlier starts counted.
        sampler: of a search: tpe, random or grid.
        pruner: of a search: median, hyperband or none.
        seed: of a search's sampler.
        storage: of a search, a URL of Optuna's; None for a journal in the sweep's folder.

    """

    def __init__(
        self,
        strategy: str,
        params: Mapping[str, str] | None,
        n_trials: int,
        sampler: str,
        pruner: str,
        seed: int,
        storage: str | None,
    ) -> None:
        self._given = {"strategy": strategy, "sampler": sampler, "pruner": pruner}
        self._searches = strategy == "optuna"
        self._params = dict(params or {})
        self._n_trials = n_trials
        self._sampler = sampler
        self._seed = seed
        self._storage = storage

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has; its launchers get a function that starts a job as a child process."""
        from bunryu.errors import ConfigError
        from bunryu.sweeps import launchers

        for key, value in self._given.items():  # not in __init__: Hydra hides what that raises
            if value not in CHOICES[key]:
                where = f"hydra.sweeper.{key}"
                raise ConfigError(
                    f"{where}={value!r} is no choice", where=where, fix=f"{where}={' or '.join(CHOICES[key])}"
                )
        del task_function
        self._loader = hydra_context.config_loader
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=launchers.launched, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Bring every job to its end.

        Raises:
            BunryuError: if the sweep cannot begin, or a job failed.
        """
        from bunryu.sweeps import launchers, runner
        from bunryu.sweeps import plan as sweep_plan

        config = self._config
        plan = sweep_plan.Plan.of(self._loader, config, arguments, self._params)
        work = self._search(plan) if self._searches else sweep_plan.fixed_jobs(plan)
        batch = config.n_jobs if self._searches else max(1, len(work.identities()))
        launch = launchers.launch_of(self._launcher, config, batch)
        runner.run(work.ledger, work, launch, stop_on_failure=config.on_failure == "stop")

    def _search(self, plan: Any) -> Any:
        """A search's jobs.

        Raises:
            ConfigError: without Optuna.
        """
        from omegaconf import OmegaConf

        from bunryu.errors import ConfigError

        try:
            from bunryu.sweeps import search, study
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"a search needs {error.name}",
                where="hydra.sweeper.strategy",
                fix="pip install 'bunryu[optuna]'",
            ) from None
        options = study.Options(self._sampler, self._n_trials, self._seed, self._storage, self._config.n_jobs)
        written = OmegaConf.to_container(self._config.hydra.sweeper, resolve=False)
        assert isinstance(written, dict)
        return search.searched_jobs(plan, options, {key: written[key] for key in ("pruner", "storage")})
