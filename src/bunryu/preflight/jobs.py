"""The jobs of a command line that is checked, each composed, and all that the first look refuses."""

from __future__ import annotations

import argparse
import copy
import secrets
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bunryu.config import schema
from bunryu.config.compose import as_hydra_reads, composed, composing, shipped_defaults
from bunryu.config.hydra_errors import explain
from bunryu.config.record import recorded_of
from bunryu.errors import BunryuError, ConfigError
from bunryu.preflight.report import EVERY, Report
from bunryu.sweeps.plan import CommandLine, command_line
from bunryu.system import ranks
from bunryu.system.secrets import secrets_in
from bunryu.training import early_checks


def composed_jobs(options: argparse.Namespace, report: Report) -> tuple[CommandLine, list[Job], Settings]:
    """The plan and its jobs; an override that cannot be is told and left out, so that all are."""
    given = list(options.overrides)
    while True:
        try:
            with composing() as loader:
                overrides = as_hydra_reads(given)
                if options.config_dir is not None:
                    overrides.insert(0, f"hydra.searchpath=['file://{options.config_dir.resolve()}']")
                planned = command_line(loader, overrides)
                return planned, *_jobs(loader, planned, report)
        except (HydraException, OmegaConfBaseException, ValueError, ConfigError) as error:
            explained = error if isinstance(error, ConfigError) else explain(error)
            if explained is None:
                raise
            left = [override for override in given if _key_of(override) != explained.where.lstrip("~")]
            report.add(EVERY, explained)
            if len(left) == len(given):
                return CommandLine([], []), [], Settings(1, None)
            given = left


def _key_of(override: str) -> str:
    """What an override sets, or, where it is no override at all, itself."""
    return override.partition("=")[0].lstrip("+~")


def _jobs(loader: Any, planned: CommandLine, report: Report) -> tuple[list[Job], Settings]:
    """Each job composed and looked at as ``bunryu train`` does first; what is refused goes to the report."""
    jobs: list[Job] = []
    settings = Settings(1, None)
    for number, overrides in enumerate(planned.jobs):
        try:
            config, node = composed(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            report.add(number, explain(error))
            continue
        report.secrets |= secrets_in(OmegaConf.to_yaml(config))
        shipped = shipped_defaults(loader, node.runtime.choices)
        if problems := _refusals(config, shipped):
            for problem in problems:
                report.add(number, problem)
        else:
            own = [item for item in overrides if item.lstrip("+").partition("=")[0] in planned.swept]
            report.add(number, early_checks.refused(lambda: jobs.append(_job(number, own, config))))  # noqa: B023
        settings = _settings(config)
    return jobs, settings


def _refusals(config: DictConfig, shipped: DictConfig) -> list[BunryuError]:
    """All that the first look refuses: what it names is put back to what ships, and it looks again."""
    config, found = copy.deepcopy(config), list[BunryuError]()
    while True:
        problem = early_checks.refused(lambda: schema.check_values(config))
        problem = problem or early_checks.refused(lambda: schema.check_shape(config, shipped))
        if problem is None:
            return found
        found.append(problem)
        key = problem.where.lstrip("~")
        if not key or any(problem.where == earlier.where for earlier in found[:-1]):
            return found
        OmegaConf.set_struct(config, False)
        node, _, name = key.rpartition(".")
        if key in schema.keys_of(shipped):
            default = OmegaConf.select(shipped, key, throw_on_missing=False)
            OmegaConf.update(config, key, default, merge=False, force_add=True)
        else:
            (OmegaConf.select(config, node) if node else config).pop(name, None)


def _settings(config: DictConfig) -> Settings:
    n_jobs, budget = config.get("n_jobs"), config.get("budget_hours")
    return Settings(n_jobs if isinstance(n_jobs, int) else 1, None if budget is None else float(budget))


def _job(number: int, overrides: list[str], config: DictConfig) -> Job:
    if config.seed is None:
        config.seed = secrets.randbelow(2**32)
    recorded = recorded_of(config)
    filled = schema.container(config)
    for node in (recorded, filled):  # train fetches and encodes anew if asked to, once; a check does not
        node["overwrite_cache"] = False
        if "force_download" in node["corpus"]:
            node["corpus"]["force_download"] = False
    return Job(number, overrides, recorded, filled)


@dataclass
class Job:
    """One job: what is its own, and its config as it would be recorded and with its references filled in."""

    number: int
    overrides: list[str]
    recorded: dict[str, Any]
    filled: dict[str, Any]

    def settle(self) -> None:
        """Take the accelerator and precision that this machine has, as ``bunryu train`` does.

        Raises:
            ConfigError: if there is none such.
        """
        from bunryu.training import accelerators, batch_size

        def settled(config: dict[str, Any]) -> dict[str, Any]:
            # of batch_size=auto the most: trying what fits could fetch a model
            return batch_size.settle_batch(accelerators.resolve_auto(config), lambda rows: True)

        self.recorded, self.filled = settled(self.recorded), settled(self.filled)

    def length(self) -> int:
        """Tokens a row may have."""
        return int(self.filled["max_seq_length"])

    def processes(self) -> int:
        """How many processes train it on this machine."""
        return ranks.processes_for(self.filled["accelerator"])


@dataclass(frozen=True)
class Settings:
    """What concerns the whole: jobs at a time, and hours that may be spent."""

    n_jobs: int
    budget_hours: float | None
