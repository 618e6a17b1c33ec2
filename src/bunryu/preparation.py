"""From a composed config to what a run records, after all that can be refused without torch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from bunryu import checks
from bunryu.composition import shipped_defaults, without_hydra
from bunryu.config import instantiate
from bunryu.recorded import plain

# What is about a sweep as a whole; a run knows nothing of it.
SWEEP_KEYS = ("sweep_name", "fresh", "retry", "on_failure", "n_jobs", "budget_hours")


def prepared(config: DictConfig, shipped: DictConfig) -> dict[str, Any]:
    """A run's config as it is recorded: plain values, secrets as ``${oc.env:NAME}``.

    Args:
        config: composed, without Hydra's node.
        shipped: the same options without the user's values.

    Raises:
        ConfigError: for keys, types and values that cannot work.
    """
    checks.check_values(config)
    checks.check_shape(config, shipped)
    return recorded_of(config)


def recorded_of(config: DictConfig) -> dict[str, Any]:
    """What a run records of a composed config: nothing that is about a sweep as a whole."""
    return {key: value for key, value in plain(config).items() if key not in SWEEP_KEYS}


def check_files(configs: Iterable[Mapping[str, Any]]) -> None:
    """Look for the corpus files of prepared configs, before torch is imported.

    Raises:
        ConfigError: for a file that is missing.
    """
    checked: list[Any] = []
    for config in configs:
        if config["corpus"] not in checked:
            instantiate(config["corpus"], "corpus")
            checked.append(config["corpus"])


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
