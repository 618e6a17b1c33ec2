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

SETTABLE = (  # what a sweep needs, and what Hydra fills in; it takes a search path from the command line only
    "launcher", "sweeper", "mode", "verbose", "searchpath",
    "overrides", "runtime", "job.name", "job.id", "job.num", "job.config_name", "job.override_dirname",
)  # fmt: skip


@contextmanager
def checked(as_written: bool = False) -> Iterator[None]:
    """While inside, a config is refused that changes anything else of what Hydra does."""
    load = ConfigLoaderImpl.load_configuration

    def load_configuration(self: ConfigLoaderImpl, *arguments: Any, **keywords: Any) -> DictConfig:
        config = load(self, *arguments, **keywords)
        _check(config.hydra)  # before Hydra makes its logging and callbacks of it
        return config

    take_environment(as_written)
    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def _check(hydra: DictConfig) -> None:
    given, shipped = _leaves(hydra), _shipped(hydra.job.config_name and "train")
    for key in given | shipped:
        if given.get(key, ...) != shipped.get(key, ...) and not is_below(key, SETTABLE):
            fix = "leave it out: of Hydra's keys only hydra.sweeper, .launcher, .mode and .verbose are set"
            raise ConfigError("this is not for a config", where=f"hydra.{key}", fix=fix)
    for part in ("launcher", "sweeper"):
        node = container(hydra[part]) if isinstance(hydra[part], DictConfig) else {"_target_": hydra[part]}
        for place, mapping in mappings(node, f"hydra.{part}"):
            target, known = mapping.get("_target_", ""), ["", *Plugins.instance().class_name_to_class]
            if target not in known:
                where, fix = f"{place}._target_", f"hydra/{part}=…"
                raise ConfigError(f"'{target}' is no {part}", where=where, fix=fix)


@functools.cache
def _shipped(config_name: str | None) -> dict[str, Any]:
    loader = ConfigLoaderImpl(create_config_search_path(str(conf_dir())))  # our conf folder alone
    return _leaves(loader._load_configuration_impl(config_name, [], RunMode.RUN).hydra)


def _leaves(hydra: DictConfig) -> dict[str, Any]:
    return dict(leaves(OmegaConf.to_container(hydra)))  # as written: a reference is no value that ships
