"""A config as a run records it, and how it is read back."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from bunryu.config.checks import problems
from bunryu.config.instantiate import below, check_names, instantiate
from bunryu.config.schema import FILES, KEYS, NODES, PATHS, Key, container
from bunryu.errors import ConfigError
from bunryu.keys import leaves, value_at
from bunryu.system.secrets import mask, remember

# Keys of a sweep as a whole, which its runs do not record.
SWEEP_KEYS = ("sweep_name", "fresh", "retry", "on_failure", "n_jobs", "budget_hours", "job_timeout_minutes")

# The only reference in a recorded config; nothing else in it is looked up or computed.
REFERENCE = re.compile(r"\$\{oc\.env:([^,{}]+)(?:,([^{}]*))?\}")

# What a run writes as it is, labels, a cleaner and names of files, or goes by as it is recorded.
NOT_FROM_ENVIRONMENT = re.compile(
    r"corpus\.(label_names|cleaner)\..+|accelerator\..+|(.+\.)?monitor|.+\.(dirpath|filename)"
    r"|logger\.[^.]+\.(name|version|save_dir|sub_dir|prefix)"
)


def prepared(config: DictConfig, shipped: DictConfig) -> dict[str, Any]:
    """A run's config as it is recorded; raises the first of the ``problems``."""
    for problem in problems(config, shipped):
        raise problem
    return recorded_of(config)


def recorded_of(config: DictConfig) -> dict[str, Any]:
    """What a run records of a composed config: nothing of a sweep, and a name for a table, set there, too."""
    recorded = {key: value for key, value in to_recorded(config).items() if key not in SWEEP_KEYS}
    if recorded["corpus"].get("name", "") is None and "train" in recorded["corpus"]:
        stem = Path(recorded["corpus"]["train"]).stem
        config.corpus.name = recorded["corpus"]["name"] = "table" if "$" in stem else stem
    return recorded


def check_files(configs: Iterable[Mapping[str, Any]]) -> None:
    """Refuse prepared configs whose corpus files are missing, before torch is imported."""
    checked: list[Any] = []
    for config in configs:
        if config["corpus"] not in checked:
            checked.append(config["corpus"])
            instantiate(fill_environment(config["corpus"], "corpus"), "corpus")


def take_environment(as_written: bool = False) -> None:
    """Have ``${oc.env:NAME}`` give a variable's value, a secret from then on, or stand as it is written."""

    def taken(name: Any, *default: Any) -> Any:
        if not as_written:
            return oc.env(remember(str(name)), *default)
        return f"${{oc.env:{','.join('null' if part is None else str(part) for part in (name, *default))}}}"

    OmegaConf.register_new_resolver("oc.env", taken, replace=True)


def located(config: Mapping[str, Any], root: Path | None = None) -> dict[str, Any]:
    """The config with absolute paths of its files and folders, those of the corpus in ``root`` if given."""
    for key in PATHS:
        (group, _, name), path = key.partition("."), value_at(config, key)
        if isinstance(path, str) and path != "test" and "${" not in path:
            config = {**config, group: {**config[group], name: _located(key, Path(path), root)}}
    return dict(config)


def _located(key: str, path: Path, root: Path | None) -> str:
    parts = [part for part in path.parts if part not in (path.anchor, "..", "~")]
    moved = [root.joinpath(*parts[start:]) for start in range(len(parts))] if root else []
    for place in (*(moved if key.startswith("corpus.") else ()), path):
        if (place / "config.json" if key == "model.name" else place).exists():
            return str(place.absolute())
    if key in FILES and not path.expanduser().exists():
        what, fix = "a file of the run's corpus is not there", "--corpus-root <the folder it is in now>"
        raise ConfigError(what, where=f"{key}={path}", fix=fix)
    return str(path)


def to_recorded(config: DictConfig) -> dict[str, Any]:
    """The config resolved to plain values, except that secrets stay as ``${oc.env:NAME}``.

    Raises ConfigError for what ``resolved`` could not give back, or a run would hold as it is.
    """
    values = container(config)
    take_environment(as_written=True)
    try:
        written = container(config.copy())
    finally:
        take_environment()
    _check_written(values, written, "")
    return {str(key): value for key, value in written.items()}


def resolved(config: Mapping[str, Any], where: str, *keys: str) -> dict[str, Any]:
    """A recorded config with secrets filled in from the environment; never written anywhere.

    Only ``${oc.env:NAME}`` and ``${oc.env:NAME,default}`` mean anything: a run directory comes from anywhere.
    With ``keys`` it has only these of the top level, so that what is not used needs no secret.
    """
    for name in NODES:
        if not isinstance(config.get(name), dict):
            raise ConfigError(f"config.yaml has no {name}", where=where, fix="another run directory")
    check_names(config, "")
    wanted = keys or config
    return {str(key): fill_environment(value, str(key)) for key, value in config.items() if key in wanted}


def check_variables(config: Mapping[str, Any], where: str, named: Collection[str], fix: str = "") -> None:
    """Refuse a recorded config, which may be anybody's, that asks for variables other than those named."""
    for key, value in leaves(config):
        for name in {found[1] for found in REFERENCE.finditer(str(value))}.difference(named):
            what = f"its {key} asks for the environment variable {name}, which may be a secret"
            raise ConfigError(what, where=where, fix=fix or f"--env {name}, if it may have the value")


def _check_written(value: Any, written: Any, where: str) -> None:
    """Refuse what ``fill_environment`` would not turn back into the value."""
    if isinstance(value, dict) and isinstance(written, dict):
        for key in value:
            _check_written(value[key], written[key], below(where, key))
    elif isinstance(value, list) and isinstance(written, list):
        for index, pair in enumerate(zip(value, written, strict=True)):
            _check_written(*pair, below(where, index))
    elif isinstance(written, str) and _without_references(written, where) != written:
        held = NOT_FROM_ENVIRONMENT.fullmatch(where) or KEYS.get(where, Key()).choices
        makes = where in ("output_root", "cache_dir", "corpus.root_dir") and mask(value) != value  # a folder
        if isinstance(value, str | None) and not held and not makes:
            return
        what = "from the environment comes text, no label, name or choice: this cannot be recorded so"
        raise ConfigError(what, where=where, fix=f"{where}=$NAME, which the shell fills in")


def _without_references(text: str, where: str) -> str:
    """The text without its references to the environment; a reference to anything else is refused."""
    rest = REFERENCE.sub("", text)
    if "${" in rest:
        what = "only ${oc.env:NAME} and ${oc.env:NAME,default} can stand in a recorded config"
        raise ConfigError(what, where=where)
    return rest


def fill_environment(value: Any, where: str) -> Any:
    """A recorded value with its references to the environment filled in; refused like ``resolved``."""
    if isinstance(value, dict):
        return {key: fill_environment(part, below(where, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [fill_environment(part, below(where, index)) for index, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    _without_references(value, where)
    whole = REFERENCE.fullmatch(value)
    if whole and whole[2] == "null" and remember(whole[1]) not in os.environ:
        return None
    return REFERENCE.sub(lambda found: _from_environment(found[1], found[2], where), value)


def _from_environment(name: str, default: str | None, where: str) -> str:
    value = os.environ.get(remember(name), default)
    if value is None:
        what = f"the environment variable {name} is not set"
        raise ConfigError(what, where=where, fix=f"export {name}=<its value>")
    return value
