"""``hydra/sweeper=ledger``: a sweep whose jobs have records, so that none is lost and none is done twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LedgerSweeper(Sweeper):
    """Runs what is missing of a sweep.

    Args:
        params: a preset's keys, each with its values as the command line would have them.
    """

    def __init__(self, params: Mapping[str, str] | None) -> None:
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has; its launchers get a function that starts a job as a child process."""
        from bunryu import launching

        del task_function
        self._loader = hydra_context.config_loader
        self._config = config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=launching.launched, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Bring every job to its end.

        Raises:
            BunryuError: if the sweep cannot begin, or a job failed.
        """
        from bunryu import launching, sweep, sweep_plan

        config = self._config
        ledger, identities = sweep_plan.grid_of(self._loader, config, arguments, self._params)
        launch = launching.launch_of(self._launcher, config, len(identities))
        policy = sweep.Policy(retry=config.retry == "failed", stop=config.on_failure == "stop")
        sweep.run(ledger, identities, launch, policy)
