"""``hydra/sweeper=ledger``: a sweep whose jobs have records, so that none is lost and none is done twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from bunryu.sweeps.plan import Plan
    from bunryu.sweeps.search import Search

CHOICES = {
    "strategy": ("grid", "optuna"),
    "sampler": ("tpe", "random", "grid"),
    "pruner": ("median", "hyperband", "none"),
}


class LedgerSweeper(Sweeper):
    """Runs what is missing of a sweep; all but the strategy and ``params`` are a search's."""

    def __init__(
        self,
        strategy: str,  # grid, all combinations, or optuna, a search
        params: Mapping[str, str] | None,  # a preset's keys, with values as the command line would have them
        n_trials: int,  # in all, those of earlier starts counted
        sampler: str,
        pruner: str,
        seed: int,  # of the sampler
        storage: str | None,  # a URL of Optuna's; None for a journal in the sweep's folder
    ) -> None:
        self._given = {"strategy": strategy, "sampler": sampler, "pruner": pruner}
        self._searches = strategy == "optuna"
        self._options = (sampler, n_trials, seed, storage)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has; its launchers get a function that starts a job as a child process."""
        from bunryu.errors import ConfigError
        from bunryu.sweeps import launchers

        for key, value in self._given.items():  # not in __init__: Hydra hides what that raises
            if value not in CHOICES[key]:
                where = f"hydra.sweeper.{key}"
                fix = f"{where}={' or '.join(CHOICES[key])}"
                raise ConfigError(f"{where}={value!r} is no choice", where=where, fix=fix)
        del task_function
        self._loader = hydra_context.config_loader
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=launchers.start_job, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Bring every job to its end; raises BunryuError if the sweep cannot begin, or a job failed."""
        from bunryu.errors import ConfigError
        from bunryu.sweeps import launchers, runner
        from bunryu.sweeps.plan import Plan, grid_jobs
        from bunryu.system import ranks

        if ranks.world_size() > 1:
            fix = "bunryu train -m … accelerator.devices=<number>, without torchrun or srun"
            raise ConfigError("a sweep starts its jobs' processes itself", where="-m", fix=fix)
        config = self._config
        plan = Plan.of(self._loader, arguments, config)
        source = self._search(plan) if self._searches else grid_jobs(plan)
        batch = config.n_jobs if self._searches else max(1, source.total)
        launch = launchers.launch_with(self._launcher, config, batch)
        runner.run(source.ledger, source, launch, stop_on_failure=config.on_failure == "stop")

    def _search(self, plan: Plan) -> Search:
        """A search's jobs; raises ConfigError without Optuna."""
        from omegaconf import OmegaConf

        from bunryu.errors import ConfigError

        try:
            from bunryu.sweeps import search, study
        except ModuleNotFoundError as error:
            what, fix = f"a search needs {error.name}", "pip install 'bunryu[optuna]'"
            raise ConfigError(what, where="hydra.sweeper.strategy", fix=fix) from None
        written = OmegaConf.to_container(self._config.hydra.sweeper, resolve=False)
        assert isinstance(written, dict)
        facts = {key: written[key] for key in ("pruner", "storage")}
        return search.search_jobs(plan, study.Options(*self._options, self._config.n_jobs), facts)
