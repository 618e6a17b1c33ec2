"""What a command line asks for, one run, a sweep or a search, and the checked configs of its jobs."""

from __future__ import annotations

import copy
import functools
import json
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
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bunryu.config.compose import shipped_defaults, without_hydra
from bunryu.config.overrides import Grid
from bunryu.config.record import SWEEP_KEYS, check_files, prepared
from bunryu.errors import BunryuError, ConfigError
from bunryu.keys import is_below, leaves
from bunryu.sweeps.ledger import Definition, Ledger, identity_of
from bunryu.sweeps.pool import Slot, run_in_slots
from bunryu.sweeps.runner import GridJobs, archive, name_of
from bunryu.system.secrets import mask

REQUIRED = {"corpus.train", "model.name"}  # in some options of their groups


class Jobs:
    """Prepares the configs of jobs; Hydra composes once for all jobs with the same option of every group."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        self._composed: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}

    def prepare(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The config of one job; raises Hydra's, OmegaConf's or a ConfigError for what cannot work."""
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
    """The jobs of a command line."""

    master: DictConfig  # the config of the whole, Hydra's own node in it
    grid: Grid  # its overrides, a preset's included
    configs: Jobs  # prepares the jobs' configs

    @classmethod
    def of(cls, loader: ConfigLoader, arguments: Sequence[str], master: DictConfig | None = None) -> Plan:
        """The plan of these overrides, some perhaps with several values.

        ``master`` is what Hydra has composed from them; None to compose it, with its and OmegaConf's errors.
        """
        if master is None:
            master = loader.load_configuration("train", list(arguments), run_mode=RunMode.MULTIRUN)
        given = master.hydra.sweeper.get("params")
        params: Any = OmegaConf.to_container(given) if given else {}  # a reference stays one in the jobs
        grid = Grid.parse(loader, arguments, params)
        return cls(master, grid, Jobs(loader, master))

    @property
    def trials(self) -> int | None:
        """How many jobs a search has; None where every job is known."""
        sweeper = self.master.hydra.sweeper
        return None if sweeper.get("strategy", "grid") == "grid" else sweeper.get("n_trials") or 1

    @property
    def jobs(self) -> list[list[str]]:
        """Each job's overrides, of a search its costliest's; raises ConfigError for a grid of an interval."""
        return self.grid.jobs() if self.trials is None else [self.costliest]

    @property
    def count(self) -> int:
        """How many jobs will run."""
        return len(self.jobs) if self.trials is None else self.trials

    @property
    def costliest(self) -> list[str]:
        """The costliest job, going by its values: of numbers the largest, of anything else the first."""
        return [_costliest(override) for override in self.grid.overrides]

    @property
    def fixed(self) -> list[str]:
        """The overrides that all jobs share."""
        return [str(item.input_line) for item in self.grid.overrides if not item.is_sweep_override()]

    @cached_property
    def base(self) -> dict[str, Any]:
        """The config of a run with nothing of what is swept; what has no default is called ``swept``."""
        return self.configs.prepare([*self.fixed, *(f"{key}=swept" for key in REQUIRED & {*self.grid.swept})])

    def job(self, overrides: Sequence[str]) -> tuple[str, Definition]:
        """A job's identity and definition, without the overrides that are about the sweep as a whole."""
        config = self.configs.prepare(overrides)
        own = [item for item in overrides if item.partition("=")[0] not in SWEEP_KEYS]
        return identity_of(config), (own, config)

    @property
    def folder(self) -> Path:
        """The ledger's folder: the same for the same command, also when a key takes more values."""
        name = self.master.sweep_name
        if name is None:
            name = name_of(self.base, self.grid.swept)
        folder = re.sub(r"[^\w.-]+", "-", mask(str(name)))
        if not folder.strip("."):
            fix = "sweep_name=<letters and digits>"
            raise ConfigError(f"'{name}' is no name", where="sweep_name", fix=fix)
        return Path(self.master.output_root).expanduser() / "sweeps" / folder


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


def grid_jobs(plan: Plan) -> GridJobs:
    """A grid's jobs, all checked, in the ledger; if one cannot work, a ConfigError, and nothing on disk."""
    jobs: dict[str, Definition] = {}
    for overrides in plan.jobs:
        identity, definition = plan.job(overrides)
        jobs.setdefault(identity, definition)
    known = set() if plan.master.fresh else set(Ledger(plan.folder).identities())
    if new := [config for identity, (_, config) in jobs.items() if identity not in known]:
        check_configs(new, plan.master.n_jobs)
    ledger = open_ledger(plan, {"strategy": "grid"})
    ledger.add(jobs)
    return GridJobs(ledger, list(jobs), plan.master.retry == "failed")


def open_ledger(plan: Plan, facts: Mapping[str, Any]) -> Ledger:
    """Make the sweep's folder, or open it again; ``fresh=true`` has an earlier one renamed.

    Raises BusyError if jobs of the earlier one are running.
    """
    path = plan.folder
    if plan.master.fresh and path.is_dir():
        archive(Ledger(path))
    own = {"monitor": plan.base["monitor"], "job_timeout_minutes": plan.master.job_timeout_minutes}
    return Ledger.create(path, {"swept": plan.grid.swept, **own, **facts})


def check_configs(configs: Sequence[Mapping[str, Any]], n_jobs: int) -> None:
    """Look for the files of all jobs, and judge what needs torch in a process that has loaded it.

    Raises ConfigError in the words of the first that is refused.
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
    """Print the first refusal; the exit code."""
    del slot
    from bunryu.training.batch_size import settle_batch
    from bunryu.training.early_checks import settle_and_check

    try:
        for config in {checked_part(config): config for config in configs}.values():
            settled = settle_batch(settle_and_check(config), lambda rows: True)
            if settled["accelerator"]["name"] == "tpu" and n_jobs > 1:
                raise ConfigError("one process at a time has a TPU", where="n_jobs", fix="n_jobs=1")
    except BunryuError as error:
        print(error, flush=True)
        return error.exit_code
    return 0


def checked_part(config: Mapping[str, Any]) -> str:
    """What the early checks read of a config; one check, of some 25 ms, is enough for all that share it."""
    # where torch or Lightning may refuse a number
    checked = ("accelerator", "datamodule.batch_size", "optimizer", "trainer")

    def is_read(key: str, value: Any) -> bool:
        return key != "optimizer.lr" and (not isinstance(value, int | float) or is_below(key, checked))

    return json.dumps([(key, value if is_read(key, value) else None) for key, value in leaves(config)])
