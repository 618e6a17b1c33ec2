"""What a config may set of Hydra's own node: what a sweep needs. A config may be anybody's."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bunryu.config.instantiate import mappings
from bunryu.config.record import take_environment
from bunryu.config.schema import container
from bunryu.errors import ConfigError
from bunryu.keys import is_below, leaves
from bunryu.system.locations import conf_dir

# What a sweep needs, and what Hydra fills in itself; it takes a search path from the command line only.
FREE = (
    "launcher", "sweeper", "mode", "verbose", "searchpath",
    "overrides", "runtime", "job.name", "job.id", "job.num", "job.config_name", "job.override_dirname",
)  # fmt: skip


@contextmanager
def checked() -> Iterator[None]:
    """While inside, a config is refused that changes anything else of what Hydra does."""
    load = ConfigLoaderImpl.load_configuration  # Hydra has no hook before it makes its logging: it is wrapped

    def load_configuration(self: ConfigLoaderImpl, *arguments: Any, **keywords: Any) -> DictConfig:
        config = load(self, *arguments, **keywords)
        _check(config.hydra)
        return config

    take_environment()
    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def _check(hydra: DictConfig) -> None:
    given, shipped = _leaves(hydra), _shipped(hydra.job.config_name and "train")
    for key in given | shipped:
        if given.get(key, ...) != shipped.get(key, ...) and not is_below(key, FREE):
            fix = "leave it out: of Hydra's keys only hydra.sweeper, .launcher, .mode and .verbose are set"
            raise ConfigError("this is not for a config", where=f"hydra.{key}", fix=fix)
    for part in ("launcher", "sweeper"):
        node = hydra[part]
        values = container(node) if isinstance(node, DictConfig) else {"_target_": node}
        for place, mapping in mappings(values, f"hydra.{part}"):
            target = str(mapping.get("_target_", ""))
            if target and target not in Plugins.instance().class_name_to_class:
                what = f"'{target}' may not be called from a config"
                raise ConfigError(what, where=f"{place}._target_", fix=f"hydra/{part}=<option>")


@functools.cache
def _shipped(config_name: str | None) -> dict[str, Any]:
    loader = ConfigLoaderImpl(create_config_search_path(str(conf_dir())))  # our conf folder alone
    return _leaves(loader._load_configuration_impl(config_name, [], RunMode.RUN).hydra)


def _leaves(hydra: DictConfig) -> dict[str, Any]:
    """As written: a reference is no value that ships, whatever it leads to."""
    return dict(leaves(OmegaConf.to_container(hydra)))
