"""From a sweep's command line to a ledger with all its jobs, checked before the first one begins."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from bunryu import preflight, ranks
from bunryu.config import check_targets
from bunryu.errors import BunryuError, ConfigError
from bunryu.grid import Grid
from bunryu.ledger import Ledger, identity_of
from bunryu.pool import Slot, in_slots
from bunryu.preparation import SWEEP_KEYS, Jobs, check_files
from bunryu.sweep import Fixed, name_of, put_aside


@dataclass(frozen=True)
class Plan:
    """What a sweep's command line asks for.

    Args:
        master: the sweep's own config.
        grid: its overrides.
        jobs: prepares configs.
    """

    master: DictConfig
    grid: Grid
    jobs: Jobs

    @classmethod
    def of(
        cls, loader: ConfigLoader, master: DictConfig, arguments: Sequence[str], params: Mapping[str, str]
    ) -> Plan:
        """Read the command line, which stands above a preset's ``params``.

        Raises:
            ConfigError: in one of several processes that torchrun or srun started.
        """
        if ranks.size() > 1:
            raise ConfigError(
                "a sweep starts its jobs' processes itself",
                where="-m",
                fix="bunryu train -m … accelerator.devices=<number>, without torchrun or srun",
            )
        return cls(master, Grid.parse(loader, arguments, params), Jobs(loader, master))

    @cached_property
    def base(self) -> dict[str, Any]:
        """The config of a run with nothing of what is swept."""
        return self.jobs.prepare(self.fixed)

    @property
    def fixed(self) -> list[str]:
        """The overrides that all jobs share."""
        return [str(item.input_line) for item in self.grid.overrides if not item.is_sweep_override()]

    @property
    def folder(self) -> Path:
        """Where the ledger lies: the same for the same command, also when a key takes more values."""
        name = self.master.sweep_name
        if name is None:
            name = name_of(self.base, self.grid.swept)
        folder = re.sub(r"[^\w.-]+", "-", str(name))
        if not folder.strip("."):
            raise ConfigError(
                f"'{name}' is no name", where="sweep_name", fix="sweep_name=<letters and digits>"
            )
        return Path(self.master.output_root).expanduser() / "sweeps" / folder

    @property
    def retry(self) -> bool:
        """Whether failed jobs are tried again."""
        return bool(self.master.retry == "failed")


def fixed_jobs(plan: Plan) -> Fixed:
    """A grid's jobs, all checked, in the ledger.

    Raises:
        ConfigError: if any job could not work; nothing is left behind then.
    """
    configs: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for overrides in plan.grid.jobs():
        config = plan.jobs.prepare(overrides)
        configs.setdefault(identity_of(config), (overrides, config))
    known = set() if plan.master.fresh else set(Ledger(plan.folder).identities())
    if new := [config for identity, (_, config) in configs.items() if identity not in known]:
        check_all(new, plan.master.n_jobs)
    ledger = open_ledger(plan, {"strategy": "grid"})
    for identity, (overrides, config) in configs.items():
        ledger.add(identity, own(overrides), config)
    return Fixed(ledger, list(configs), plan.retry)


def open_ledger(plan: Plan, facts: Mapping[str, Any]) -> Ledger:
    """Make the sweep's folder, or open it again; an earlier one is put aside if the user wants to begin anew.

    Raises:
        BusyError: if the earlier one is at work.
        ConfigError: if there cannot be a folder.
    """
    path = plan.folder
    if plan.master.fresh and path.is_dir():
        put_aside(Ledger(path))
    try:
        return Ledger.create(path, {"swept": plan.grid.swept, "monitor": plan.base["monitor"], **facts})
    except OSError as error:
        raise ConfigError(
            f"cannot make the sweep's folder: {error.strerror}", where=str(path), fix="output_root=<folder>"
        ) from None


def own(overrides: Sequence[str]) -> list[str]:
    """What a job's own command line has of a sweep's."""
    return [item for item in overrides if item.partition("=")[0] not in SWEEP_KEYS]


def check_all(configs: Sequence[Mapping[str, Any]], n_jobs: int) -> None:
    """Look for all configs' files, and judge their targets and accelerators.

    The latter where torch is loaded anyway: in the process that jobs come from.

    Args:
        configs: of jobs.
        n_jobs: how many will run at once.

    Raises:
        ConfigError: in the words of the first that is refused.
    """
    check_files(configs)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        check = functools.partial(_check, n_jobs=n_jobs)
        ((_, code),) = in_slots([configs], check, [Slot()], lambda _: output)
        if code:
            said = output.read_text("utf-8").strip() if output.is_file() else ""
            raise ConfigError(said or f"the process that checks the jobs died with exit code {code}")


def _check(configs: Sequence[Mapping[str, Any]], slot: Slot, n_jobs: int) -> int:
    del slot
    from bunryu import accelerators, batch_size

    tried: list[Any] = []
    try:
        for config in configs:
            check_targets(config)
            settled = batch_size.settle_batch(accelerators.settle(config), lambda rows: True)
            ranks.check(settled["accelerator"]["devices"], settled["trainer"].get("num_nodes", 1))
            if settled["accelerator"]["name"] == "tpu" and n_jobs > 1:
                raise ConfigError("one process at a time has a TPU", where="n_jobs", fix="n_jobs=1")
            if (parts := (settled["optimizer"], settled["trainer"])) not in tried:
                preflight.refuse_machine_problems(settled)
                tried.append(parts)
    except BunryuError as error:
        print(error, flush=True)
        return error.exit_code
    return 0
