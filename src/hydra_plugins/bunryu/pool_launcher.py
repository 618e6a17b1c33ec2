"""``hydra/launcher=pool``: a sweep's jobs run in ``n_jobs`` slots of this machine."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PoolLauncher(Launcher):
    """A name only: the ledger sweeper starts the jobs itself, see ``sweeps.launchers``."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to prepare."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Refused: another sweeper's jobs have no records.

        Raises:
            ConfigError: always.
        """
        from bunryu.errors import ConfigError

        raise ConfigError(
            "the pool launches jobs of the ledger only",
            where="hydra/launcher",
            fix="hydra/sweeper=ledger, or hydra/launcher=basic",
        )
