"""From a command line to composed configs, one or a sweep's, without Hydra's own program around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bunryu.config import hydra_allowlist
from bunryu.config.overrides import quote
from bunryu.errors import ConfigError
from bunryu.system.locations import conf_dir

# Groups that only set values of other groups; they are not part of what ships as a default.
OVERLAYS = ("experiment", "debug", "sweep")
# Hydra's options whose value is the next word.
TAKE_A_VALUE = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p",
    "--info", "-i",
)  # fmt: skip


@contextmanager
def composing() -> Iterator[ConfigLoader]:
    """Hydra's compose API on our configs while inside, its own node checked as ``bunryu train`` does."""
    with hydra_allowlist.checked(), initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def as_hydra_reads(arguments: Sequence[str], sweeps: bool = False) -> list[str]:
    """A command line with its options first, ``~`` expanded, and quotes where Hydra's grammar needs them."""
    options: list[str] = []
    overrides: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument.startswith("--e"):  # Hydra's --experimental-rerun, or as much of it as argparse takes
            raise ConfigError("it would unpickle a file", where=argument, fix="bunryu reproduce <run>")
        is_override = not argument.startswith("-") and before not in TAKE_A_VALUE
        (overrides if is_override else options).append(argument)
    return options + [quote(_expand_home(argument), sweeps) for argument in overrides]


def own_options(arguments: Sequence[str]) -> Path | None:
    """The folder of the user's own options that a command line names."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    named = [after for word, after in pairwise(words) if word in ("--config-dir", "-cd")]
    return Path(named[-1]).expanduser() if named else None


def _expand_home(argument: str) -> str:
    """``output_root=~/runs`` with the home folder, which the shell does not put in behind a ``=``."""
    key, equals, value = argument.partition("=")
    if key.lstrip("+") == "output_root" and value.startswith("~"):
        return f"{key}{equals}{Path(value).expanduser()}"
    return argument


def composed(overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
    """The config of these overrides, and Hydra's own node; raises Hydra's and OmegaConf's own errors."""
    config = compose("train", list(overrides), return_hydra_config=True)
    return without_hydra(config), config.hydra


def shipped_defaults(loader: ConfigLoader, choices: Mapping[str, Any]) -> DictConfig:
    """The config with the same options, as in ``hydra.runtime.choices``, and none of the user's values."""
    overrides = [
        f"{group}={choice}"
        for group, choice in choices.items()
        if not group.startswith("hydra/") and group not in OVERLAYS and choice is not None
    ]
    return without_hydra(loader.load_configuration("train", overrides, run_mode=RunMode.RUN))


def without_hydra(config: DictConfig) -> DictConfig:
    """The config as a job gets it."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
