"""Hydra's errors in our words, with the nearest key or option that exists."""

from __future__ import annotations

import re
from collections.abc import Callable

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bunryu.errors import ConfigError
from bunryu.keys import keys_of, nearest
from bunryu.system.locations import conf_dir

Builder = Callable[[re.Match[str]], ConfigError]


def explain(error: Exception) -> ConfigError | None:
    """A Hydra or OmegaConf error in our words, with the nearest valid key; None for any other error."""
    text = "\n".join(filter(None, (str(error), str(error.__cause__ or ""))))
    for pattern, explained in MESSAGES:
        if found := re.search(pattern, text):
            return explained(found)
    if isinstance(error, ValueError) and not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    key = getattr(error, "full_key", None)
    return ConfigError(first, where=str(key or "the command line"), fix="bunryu train --help")


def _unknown_key(found: re.Match[str]) -> ConfigError:
    key = found[1]
    near = nearest(key, _shipped_keys())
    if near == key:  # Hydra finds no key whose value is null
        return ConfigError(f"'{key}' cannot be taken away", where=f"~{key}", fix=f"{key}=<value>")
    fix = f"did you mean '{near}'?" if near else "bunryu train --cfg job"
    return ConfigError(f"there is no key '{key}'", where=key, fix=fix)


def _unknown_option(found: re.Match[str]) -> ConfigError:
    wrong, group, options = found[1].rsplit("/", 1)[-1], found[2], found[3].split()
    near = nearest(wrong, options)
    meant = f"did you mean {group}={near}? " if near else ""
    return ConfigError(
        f"'{group}' has no option '{wrong}'", where=group, fix=f"{meant}options: {', '.join(options)}"
    )


def _worded(what: str, where: str, fix: str) -> Builder:
    """A refusal in these words, with ``{0}`` for the pattern's first group and so on."""

    def explained(found: re.Match[str]) -> ConfigError:
        texts = [text.format(*found.groups()) for text in (what, where, fix)]
        return ConfigError(texts[0], where=texts[1], fix=texts[2])

    return explained


# What Hydra and OmegaConf say, and what it means; the first that is found counts.
MESSAGES: tuple[tuple[str, Builder], ...] = (
    (r"Could not (?:override|append to config\.\s+An item is already at|delete from config\.(?=.*exist)) "
     r"'([^']+)'", _unknown_key),
    (r"(?:In '[^']+': )?Could not find '([^']+)'\n+Available options in '([^']+)':\n([\s\S]*?)(?:\n\S|\Z)",
     _unknown_option),
    (r"Ambiguous value for argument '([^=]+)=(.*)'",
     _worded("{0}={1} could be a sweep, a list or a text", "{0}",
             "-m to sweep over it, or {0}=[{1}] for a list")),
    (r"Could not delete from config\. The value of '([^']+)' is (.*) and not",
     _worded("{0} is {1}", "~{0}", "~{0}")),
    (r"(?:Could not delete|not supported:) '[+~]*([^'=]+)=",
     _worded("an option of a group is neither added twice nor taken away by its name", "{0}",
             "{0}=<option>")),
    (r"You must specify '([^']+)'", _worded("'{0}' has no option", "{0}", "{0}=<option>")),
    (r"Error merging override [+~]*([^=]+)=(.*)",
     _worded("{0} cannot be {1}", "{0}",
             "a value, a list, or a mapping whose keys are texts or numbers; "
             "$ and {{ in 'quotes', as \\${{")),
    (r"Config group override",
     _worded("a group takes the name of one of its options", "the command line",
             "bunryu train --help lists them")),
    (r"Error parsing override '([^']*)'",
     _worded("'{0}' is no override", "{0}", "key=value or group=option, without blanks around =")),
)  # fmt: skip


def _shipped_keys() -> list[str]:
    """Every dotted key of every shipped option, read without composing: this is for a quick answer."""
    keys: list[str] = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        group = path.relative_to(conf_dir()).parent.parts
        if group[:1] in (("hydra",), ("experiment",), ("debug",)):
            continue
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for name in reversed(group):
            content = {name: content}
        keys += keys_of(content)
    return keys
