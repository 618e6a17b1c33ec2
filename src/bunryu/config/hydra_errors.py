"""Hydra's errors in our words, with the nearest key or option that exists."""

from __future__ import annotations

import re

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bunryu.config import schema
from bunryu.errors import ConfigError
from bunryu.keys import keys_of
from bunryu.system.locations import conf_dir


def explain(error: Exception) -> ConfigError | None:
    """A Hydra or OmegaConf error in our words, with the nearest valid key; None for any other error."""
    text = "\n".join(filter(None, (str(error), str(error.__cause__ or ""))))
    if found := re.search(
        r"Could not (?:override|append to config\.\s+An item is already at|delete from config\.(?=.*exist)) "
        r"'([^']+)'",
        text,
    ):
        key = found[1]
        near = schema.nearest(key, _shipped_keys())
        if near == key:  # Hydra finds no key whose value is null
            return ConfigError(f"'{key}' cannot be taken away", where=f"~{key}", fix=f"{key}=<value>")
        return ConfigError(
            f"there is no key '{key}'",
            where=key,
            fix=f"did you mean '{near}'?" if near else "bunryu train --cfg job",
        )
    if found := re.search(
        r"(?:In '[^']+': )?Could not find '([^']+)'\n+Available options in '([^']+)':\n([\s\S]*?)(?:\n\S|\Z)",
        text,
    ):
        options = found[3].split()
        wrong = found[1].rsplit("/", 1)[-1]
        near = schema.nearest(wrong, options)
        return ConfigError(
            f"'{found[2]}' has no option '{wrong}'",
            where=found[2],
            fix=(f"did you mean {found[2]}={near}? " if near else "") + f"options: {', '.join(options)}",
        )
    if found := re.search(r"Ambiguous value for argument '([^=]+)=(.*)'", text):
        return ConfigError(
            f"{found[1]}={found[2]} could be a sweep, a list or a text",
            where=found[1],
            fix=f"-m to sweep over it, or {found[1]}=[{found[2]}] for a list",
        )
    if found := re.search(r"Could not delete from config\. The value of '([^']+)' is (.*) and not", text):
        return ConfigError(f"{found[1]} is {found[2]}", where=f"~{found[1]}", fix=f"~{found[1]}")
    if found := re.search(r"(?:Could not delete|not supported:) '[+~]*([^'=]+)=", text):
        return ConfigError(
            "an option of a group is neither added twice nor taken away by its name",
            where=found[1],
            fix=f"{found[1]}=<option>",
        )
    if found := re.search(r"You must specify '([^']+)'", text):
        return ConfigError(f"'{found[1]}' has no option", where=found[1], fix=f"{found[1]}=<option>")
    if found := re.search(r"Error merging override [+~]*([^=]+)=(.*)", text):
        return ConfigError(
            f"{found[1]} cannot be {found[2]}",
            where=found[1],
            fix="a value, a list, or a mapping whose keys are texts or numbers; $ and { in 'quotes', as \\${",
        )
    if "Config group override" in text:
        return ConfigError(
            "a group takes the name of one of its options",
            where="the command line",
            fix="bunryu train --help lists them",
        )
    if found := re.search(r"Error parsing override '([^']*)'", text):
        return ConfigError(
            f"'{found[1]}' is no override",
            where=found[1],
            fix="key=value or group=option, without blanks around =",
        )
    if isinstance(error, ValueError) and not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    key = getattr(error, "full_key", None)
    return ConfigError(first, where=str(key or "the command line"), fix="bunryu train --help")


def _shipped_keys() -> list[str]:
    """Every dotted key of every shipped option, read without composing: this is for a quick answer."""
    keys: list[str] = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        group = path.relative_to(conf_dir()).parent.parts
        if group[:1] in (("hydra",), ("experiment",), ("debug",)):
            continue
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        nested = content
        for name in reversed(group):
            nested = {name: nested}
        keys += keys_of(nested)
    return keys
