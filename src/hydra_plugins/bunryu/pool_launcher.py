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
        """Refused by a ConfigError: another sweeper's jobs have no records."""
        from bunryu.errors import ConfigError

        what, where = "the pool launches jobs of the ledger only", "hydra/launcher"
        raise ConfigError(what, where=where, fix="hydra/sweeper=ledger")
