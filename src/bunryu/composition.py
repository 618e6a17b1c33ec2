"""From a command line to composed configs, one or a sweep's, without Hydra's own program around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bunryu import hydra_node
from bunryu.errors import ConfigError
from bunryu.explanation import conf_dir
from bunryu.grid import Grid
from bunryu.overrides import quote

# Overlays that set values of other groups; they are not part of what ships as a default.
OVERLAYS = ("experiment", "debug", "sweep")


@dataclass(frozen=True)
class Plan:
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


@contextmanager
def composing() -> Iterator[ConfigLoader]:
    """Hydra's compose API on our configs while inside, its own node judged as ``bunryu train`` does."""
    with hydra_node.checked(), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def as_hydra_reads(arguments: Sequence[str]) -> list[str]:
    """Command-line overrides with ``~`` expanded and quoted where Hydra's grammar needs it."""
    return [quote(_expand_home(argument)) for argument in arguments]


def _expand_home(argument: str) -> str:
    """``output_root=~/runs`` as the shell would have it if it looked behind the ``=``; Hydra uses it too."""
    key, equals, value = argument.partition("=")
    if key.lstrip("+") == "output_root" and value.startswith("~"):
        return f"{key}{equals}{Path(value).expanduser()}"
    return argument


def plan(loader: ConfigLoader, arguments: Sequence[str]) -> Plan:
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
        return Plan([_representative(grid)], grid.swept, sweeper.get("n_trials") or 1)
    if intervals:
        raise ConfigError(
            f"{intervals[0]} is an interval: a grid would never end",
            where=intervals[0],
            fix=f"hydra.sweeper.strategy=optuna, or {intervals[0]}=choice(…)",
        )
    return Plan(grid.jobs(), grid.swept)


def composed(overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
    """The config of these overrides, and Hydra's own node.

    Raises:
        HydraException, OmegaConfBaseException: for what cannot be composed.
        ConfigError: for a node of Hydra's that would call something else.
    """
    config = compose("train", list(overrides), return_hydra_config=True)
    return without_hydra(config), config.hydra


def shipped_defaults(loader: ConfigLoader, choices: Mapping[str, Any]) -> DictConfig:
    """The config with the same option of every group and none of the user's values.

    Args:
        loader: Hydra's.
        choices: ``hydra.runtime.choices``, the option of each group.
    """
    overrides = [
        f"{group}={choice}"
        for group, choice in choices.items()
        if not group.startswith("hydra/") and group not in OVERLAYS and choice is not None
    ]
    return without_hydra(loader.load_configuration("train", overrides, run_mode=RunMode.RUN))


def without_hydra(config: DictConfig) -> DictConfig:
    """The config as a job gets it."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


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
