"""The jobs of a command line that is checked, each composed, and what is refused of them without torch."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bunryu.config import checks, schema
from bunryu.config.compose import as_hydra_reads, composed, composing, shipped_defaults
from bunryu.config.hydra_errors import explain
from bunryu.config.record import recorded_of
from bunryu.errors import ConfigError
from bunryu.preflight.report import EVERY, Report
from bunryu.sweeps.plan import Plan
from bunryu.system import ranks
from bunryu.training import early_checks


def composed_jobs(options: argparse.Namespace, report: Report) -> tuple[Plan, list[Job]] | None:
    """The plan and its jobs; None if there can be none.

    An override that is refused is reported and left out, so that one check names all mistakes.
    """
    given = list(options.overrides)
    while True:
        try:
            with composing() as loader:
                overrides = as_hydra_reads(given, sweeps=True)
                if options.config_dir is not None:
                    overrides.insert(0, f"hydra.searchpath=['file://{options.config_dir.resolve()}']")
                plan = Plan.of(loader, overrides)
                composed(plan.costliest)  # a swept key may be a mistake, too
                return plan, _jobs(loader, plan, report)
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError, ConfigError) as error:
            explained = error if isinstance(error, ConfigError) else explain(error, options.config_dir)
            if explained is None:
                raise
            left = [override for override in given if _key_of(override) != explained.where.lstrip("~")]
            report.add(EVERY, explained)
            if len(left) == len(given):
                return None
            given = left


def _key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _jobs(loader: Any, plan: Plan, report: Report) -> list[Job]:
    """Each job composed and checked as ``bunryu train`` does first; what is refused is reported."""
    jobs: list[Job] = []
    for number, overrides in enumerate(plan.jobs):
        try:
            config, node = composed(overrides)
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            report.add(number, explain(error))
            continue
        shipped = shipped_defaults(loader, node.runtime.choices)
        problems = list(checks.problems(config, shipped))
        for problem in problems:
            report.add(number, problem)
        if not problems:
            own = [item for item in overrides if _key_of(item) in plan.grid.swept]
            report.add(number, early_checks.refused(lambda: jobs.append(_job(number, own, config))))  # noqa: B023
    return jobs


def _job(number: int, overrides: list[str], config: DictConfig) -> Job:
    if config.seed is None:
        config.seed = secrets.randbelow(2**32)
    recorded, filled = recorded_of(config), schema.container(config)
    for node in (recorded, filled):  # train fetches and encodes anew if asked to, once; a check does not
        node["overwrite_cache"] = False
        node["corpus"] |= {key: False for key in node["corpus"] if key == "force_download"}
    return Job(number, overrides, recorded, filled)


@dataclass
class Job:
    """One job of a plan."""

    number: int  # its place in the sweep
    overrides: list[str]  # of the swept keys
    recorded: dict[str, Any]  # its config as a run would record it
    filled: dict[str, Any]  # the same with its references to the environment filled in

    def settle(self) -> None:
        """Take the accelerator and precision that this machine has; refused if there is none such."""
        from bunryu.training import accelerators, batch_size

        self.recorded, self.filled = (
            # of batch_size=auto the most: trying what fits could fetch a model
            batch_size.settle_batch(accelerators.resolve_auto(config), lambda rows: True)
            for config in (self.recorded, self.filled)
        )

    def processes(self) -> int:
        """How many processes train it on this machine."""
        return ranks.processes_for(self.filled["accelerator"])
