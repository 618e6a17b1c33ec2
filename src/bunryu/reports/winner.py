"""The winner of a comparison as an experiment: a config file that composes to it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from bunryu.config.schema import GROUPS
from bunryu.errors import ModelError
from bunryu.reports.comparison import typed_overrides
from bunryu.reports.entries import RunSummary
from bunryu.runs.run import Run

OVERLAYS = ("experiment", "debug")  # groups whose options are laid over all others
MISSING = object()


def experiment_of(winner: RunSummary, why: str) -> str:
    """The winner's overrides as the text of an experiment, its seed included.

    Values are those of its recorded config, which Hydra has read already; an option of a group becomes an
    entry of the defaults list. What no file can say, such as ``~key``, stands in a comment.

    Args:
        winner: a finished run, or its job.
        why: what it won, a line.
    """
    config = _config(winner)
    defaults: list[Any] = []
    overridden: list[Any] = []
    nested: dict[str, Any] = {"seed": config.get("seed")}
    unsaid = []
    for key, text in dict(typed_overrides(winner.overrides)).items():
        if key in OVERLAYS:
            option = text.strip("'\"")
            if option not in ("null", "~"):
                defaults.append(option if key == "experiment" else f"/{key}/{option}")
        elif text == "~":
            unsaid.append(f"'~{key}'")
        elif key in GROUPS:
            overridden.append({f"override /{key}": _option(text)})
        elif (value := _looked_up(config, key)) is not MISSING:
            _set(nested, key, value)
        elif "." in key:
            unsaid.append(f"'+{key}={' '.join(text.split())}'")
    lines = ["# @package _global_", f"# {' '.join(why.split())}", f"# run: {' '.join(winner.name.split())}"]
    if unsaid:
        lines.append(f"# not said here, to be added on the command line: {' '.join(unsaid)}")
    content = {"defaults": [*defaults, *overridden]} if defaults or overridden else {}
    text = "".join(
        yaml.safe_dump(part, allow_unicode=True, sort_keys=False, width=1000)
        for part in (content, nested)
        if part
    )
    return "\n".join(lines) + "\n" + text


def _config(winner: RunSummary) -> Mapping[str, Any]:
    """Of the run's own YAML, where a number that is a key still is one; else what the manifest has."""
    if winner.path is None:
        return winner.config
    try:
        return Run(winner.path).config
    except ModelError:
        return winner.config


def _option(text: str) -> Any:
    """A group's option, or a list of them."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _looked_up(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return MISSING
        node = node[part]
    return node


def _set(nested: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        nested = nested.setdefault(part, {})
    nested[last] = value
