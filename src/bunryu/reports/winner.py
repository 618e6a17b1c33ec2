"""The winner of a comparison as an experiment: a config file that composes to it again."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import yaml

from bunryu.config.schema import GROUPS
from bunryu.errors import ModelError
from bunryu.keys import set_at, value_at
from bunryu.reports.comparison import typed_overrides
from bunryu.reports.entries import RunSummary
from bunryu.runs.run import Run

MISSING = object()


def experiment_of(winner: RunSummary, why: str) -> str:
    """The winner's overrides as the text of an experiment, its seed included.

    Values are those of its recorded config, which Hydra has read already; an option of a group becomes an
    entry of the defaults list. What no file can say, such as ``~key``, stands in a comment, as does why.
    """
    config = winner.config
    if winner.path is not None:
        with suppress(ModelError):  # then the manifest's must do
            config = Run(winner.path).config  # YAML, in which a number can be a key
    defaults: list[Any] = []
    overridden: list[Any] = []
    nested: dict[str, Any] = {"seed": config.get("seed")}
    not_said = []
    for key, text in dict(typed_overrides(winner.overrides)).items():
        if key in ("experiment", "debug"):  # an option of these is laid over all others
            option = text.strip("'\"")
            if option not in ("null", "~"):
                defaults.append(option if key == "experiment" else f"/{key}/{option}")
        elif text == "~":
            not_said.append(f"'~{key}'")
        elif key in GROUPS:
            overridden.append({f"override /{key}": _option(text)})
        elif (value := value_at(config, key, MISSING)) is not MISSING:
            set_at(nested, key, value)
        elif "." in key:
            not_said.append(f"'+{key}={' '.join(text.split())}'")
    lines = ["# @package _global_", f"# {' '.join(why.split())}", f"# run: {' '.join(winner.name.split())}"]
    if not_said:
        lines.append(f"# not said here, to be added on the command line: {' '.join(not_said)}")
    content = {"defaults": [*defaults, *overridden], **nested} if defaults or overridden else nested
    return "\n".join(lines) + "\n" + yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=1000)


def _option(text: str) -> Any:
    """A group's option, or a list of them."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
