"""From a command line to the jobs of a run, a sweep or a search, checked before the first one begins."""

from __future__ import annotations

import copy
import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from bunryu.config.compose import composed, shipped_defaults, without_hydra
from bunryu.config.overrides import Grid
from bunryu.config.record import SWEEP_KEYS, check_files, prepared
from bunryu.errors import BunryuError, ConfigError
from bunryu.sweeps.ledger import Ledger, identity_of
from bunryu.sweeps.pool import Slot, run_in_slots
from bunryu.sweeps.runner import GridJobs, name_of, put_aside
from bunryu.system import ranks


@dataclass(frozen=True)
class CommandLine:
    """What a command line asks for.

    Args:
        jobs: each job's overrides; of a search the one that stands for all.
        swept: the keys that take several values.
        trials: jobs of a search, None where ``jobs`` are all there is.
    """

    jobs: list[list[str]]
    swept: list[str]
    trials: int | None = None

    @property
    def count(self) -> int:
        """How many jobs will run."""
        return len(self.jobs) if self.trials is None else self.trials


def command_line(loader: ConfigLoader, arguments: Sequence[str]) -> CommandLine:
    """The jobs of a command line: one, a sweep's, or the one that stands for a search's.

    Args:
        loader: what ``composing`` gave.
        arguments: overrides, some perhaps with several values.

    Raises:
        ConfigError: for an interval where nothing searches.
        HydraException: for what Hydra cannot read.
    """
    representative = _representative(Grid.parse(loader, arguments, {}))
    sweeper = composed(representative)[1].sweeper
    grid = Grid.parse(loader, arguments, sweeper.get("params") or {})
    intervals = [item.get_key_element() for item in grid.overrides if item.is_interval_sweep()]
    if sweeper.get("strategy", "grid") != "grid":
        return CommandLine([_representative(grid)], grid.swept, sweeper.get("n_trials") or 1)
    if intervals:
        raise ConfigError(
            f"{intervals[0]} is an interval: a grid would never end",
            where=intervals[0],
            fix=f"hydra.sweeper.strategy=optuna, or {intervals[0]}=choice(…)",
        )
    return CommandLine(grid.jobs(), grid.swept)


def _representative(grid: Grid) -> list[str]:
    """The costliest job, as far as values tell: of numbers the largest, of anything else the first."""
    return [_costliest(override) for override in grid.overrides]


def _costliest(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return f"{key}={value.end}"
    values = [job.partition("=")[2] for (job,) in Grid((override,)).jobs()]
    try:
        return f"{key}={max(values, key=float)}"
    except ValueError:  # names, not numbers
        return f"{key}={values[0]}"


class Jobs:
    """Prepares the configs of a sweep's jobs; Hydra composes once for jobs that share their groups' options.

    Args:
        loader: Hydra's.
        master: the config of the sweep.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._composed: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}

    def prepare(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The config of one job, from its overrides.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: for what cannot work.
        """
        choices: Mapping[str, Any] = self._master.hydra.runtime.choices
        parsed = self._parser.parse_overrides(list(overrides))
        values = [item for item in parsed if item.key_or_group not in choices and item.type.name == "CHANGE"]
        groups = [item.input_line for item in parsed if item not in values]
        config, shipped = self._base(tuple(map(str, groups)))
        config = copy.deepcopy(config)
        OmegaConf.set_struct(config, True)  # a key that is not there needs its plus, as in a run of its own
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return prepared(config, shipped)

    def _base(self, groups: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        if groups not in self._composed:
            composed = self._loader.load_sweep_config(self._master, list(groups))
            shipped = shipped_defaults(self._loader, composed.hydra.runtime.choices)
            self._composed[groups] = (without_hydra(composed), shipped)
        return self._composed[groups]


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
        if ranks.world_size() > 1:
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


def fixed_jobs(plan: Plan) -> GridJobs:
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
    return GridJobs(ledger, list(configs), plan.retry)


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
        ((_, code),) = run_in_slots([configs], check, [Slot()], lambda _: output)
        if code:
            said = output.read_text("utf-8").strip() if output.is_file() else ""
            raise ConfigError(said or f"the process that checks the jobs died with exit code {code}")


def _check(configs: Sequence[Mapping[str, Any]], slot: Slot, n_jobs: int) -> int:
    del slot
    from bunryu.training.batch_size import settle_batch
    from bunryu.training.early_checks import settle_and_check

    try:
        for config in configs:
            settled = settle_batch(settle_and_check(config), lambda rows: True)
            if settled["accelerator"]["name"] == "tpu" and n_jobs > 1:
                raise ConfigError("one process at a time has a TPU", where="n_jobs", fix="n_jobs=1")
    except BunryuError as error:
        print(error, flush=True)
        return error.exit_code
    return 0
