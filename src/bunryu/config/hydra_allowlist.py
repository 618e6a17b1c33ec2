"""What Hydra's own node of a config may have Hydra make: a config may be anybody's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from bunryu.errors import ConfigError

# Launchers and sweepers, Hydra's own or an installed plugin's. No callbacks.
TARGET = re.compile(r"(hydra\._internal\.core_plugins|hydra_plugins(\.\w+)+)\.\w+\.\w+(Launcher|Sweeper)")
HANDLER = re.compile(r"logging\.(handlers\.)?\w+Handler|logging\.Formatter")
LOGGING = ("hydra.job_logging.", "hydra.hydra_logging.")
MADE = ("hydra.callbacks", "hydra.launcher", "hydra.sweeper", *LOGGING)


@contextmanager
def checked() -> Iterator[None]:
    """While inside, a config is refused whose ``hydra`` node would have Hydra call something else.

    Hydra has no hook between composing a config and making its logging and callbacks: composing is wrapped.
    """
    load = ConfigLoaderImpl.load_configuration

    def load_configuration(self: ConfigLoaderImpl, *arguments: Any, **keywords: Any) -> DictConfig:
        config = load(self, *arguments, **keywords)
        check(OmegaConf.to_container(config, resolve=False)["hydra"], "hydra")  # type: ignore[index, call-overload]
        return config

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def check(node: Any, where: str) -> None:
    """Refuse targets, logging factories and references that are not Hydra's or logging's own."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, Mapping):
        for key, value in node.items():
            place = f"{where}.{key}"
            logs = place.startswith(LOGGING)
            if (
                (key == "_target_" and not TARGET.fullmatch(str(value)))
                or (key == "()" and logs)
                or (key == "class" and logs and not HANDLER.fullmatch(str(value)))
            ):
                raise ConfigError(f"'{value}' may not be called from a config", where=place)
            check(value, place)
    elif isinstance(node, str) and where.startswith(MADE):
        known = r"hydra[.:]|oc\.env:" if where == "hydra.sweeper.storage" else r"hydra[.:]"
        elsewhere = re.match(rf"\s*\$\{{(?!{known})", node)  # a reference to a node that is not checked here
        if elsewhere or ("ext://" in node and node not in ("ext://sys.stdout", "ext://sys.stderr")):
            raise ConfigError(f"'{node}' may not be named here", where=where)
