"""A command line with sweeps in it, as the command lines of its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from bunryu.errors import ConfigError


@dataclass(frozen=True)
class Grid:
    """A sweep's overrides, parsed; the command line's stand in for a preset's of the same key."""

    overrides: tuple[Override, ...]

    @classmethod
    def parse(cls, loader: ConfigLoader, arguments: Sequence[str], params: Mapping[str, str]) -> Grid:
        """Read overrides in Hydra's grammar.

        Args:
            loader: knows the options that a ``glob`` stands for.
            arguments: the command line's overrides.
            params: the ``hydra.sweeper.params`` of a preset.
        """
        parser = OverridesParser.create(config_loader=loader)
        preset = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
        given = parser.parse_overrides(list(arguments))
        by_key = {override.get_key_element().lstrip("+"): override for override in (*preset, *given)}
        return cls(tuple(by_key.values()))

    @property
    def swept(self) -> list[str]:
        """The keys that take several values."""
        return [item.get_key_element().lstrip("+") for item in self.overrides if item.is_sweep_override()]

    def jobs(self) -> list[list[str]]:
        """Each job's overrides, the last key's values changing fastest.

        Raises:
            ConfigError: for an interval, of which there are endlessly many values.
        """
        for item in self.overrides:
            if item.is_interval_sweep():
                key = item.get_key_element()
                raise ConfigError(
                    f"{key} is an interval: a grid of it would never end",
                    where=key,
                    fix=f"hydra.sweeper.strategy=optuna, or {key}=<value>,<value>",
                )
        (jobs,) = BasicSweeper.split_arguments(list(self.overrides), None)
        return jobs
