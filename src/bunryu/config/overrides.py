"""Hydra's override grammar: quoting what the shell left unquoted, and the jobs of a sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from bunryu.config.schema import GROUPS, takes_text
from bunryu.errors import ConfigError

# Numbers, and commas outside quotes: Hydra takes neither for text.
TEXT_READ_OTHERWISE = re.compile(r"[-+\d][\d_.eE+-]*|[^'\"{}\[\]()$]*,[^'\"{}\[\]()$]*")


@dataclass(frozen=True)
class Grid:
    """A sweep's overrides, parsed; the command line's stand in for a preset's of the same key."""

    overrides: tuple[Override, ...]

    @classmethod
    def parse(cls, loader: ConfigLoader, arguments: Sequence[str], params: Mapping[str, str]) -> Grid:
        """Of a command line's overrides and the ``hydra.sweeper.params`` of a preset, in Hydra's grammar."""
        parser = OverridesParser.create(config_loader=loader)
        preset = [f"{key}={value}" for key, value in params.items()]
        parsed = parser.parse_overrides([*preset, *arguments])
        return cls(tuple({item.get_key_element().lstrip("+"): item for item in parsed}.values()))

    @property
    def swept(self) -> list[str]:
        """The keys that take several values."""
        return [item.get_key_element().lstrip("+") for item in self.overrides if item.is_sweep_override()]

    def jobs(self) -> list[list[str]]:
        """Each job's overrides, the last key's values changing fastest; an interval is refused."""
        for key in (item.get_key_element() for item in self.overrides if item.is_interval_sweep()):
            fix = f"hydra.sweeper.strategy=optuna, or {key}=<value>,<value>"
            raise ConfigError(f"{key} is an interval: a grid of it would never end", where=key, fix=fix)
        (jobs,) = BasicSweeper.split_arguments(list(self.overrides), None)
        return jobs


def quote(override: str, sweeps: bool = False) -> str:
    """A command-line override as Hydra's grammar wants it: a value it cannot parse is taken as text.

    ``output_root=/drive/My Drive (1)/it's`` comes out quoted, and so does ``sweep_name=2024_11``, whose key
    takes no number; what parses stays as it is. Of a sweep, each value between commas is one.
    """
    key, equals, value = override.partition("=")
    name = key.lstrip("+~")
    if name in GROUPS and re.search(r"[{}]|\[.*\[", value):
        raise ConfigError("a group takes the name of one of its options", where=key, fix=f"{key}=<option>")
    if not equals or override.startswith("-") or not re.fullmatch(r"[+~]{0,2}[\w./@:-]+", key):
        return override
    values = _split(value) if sweeps else [value]
    if takes_text(name):
        values = [f"'{one}'" if TEXT_READ_OTHERWISE.fullmatch(one) else one for one in values]
    spelt = ",".join(values)
    if _parses(f"{key}={spelt}"):
        return f"{key}={spelt}"
    if re.fullmatch(r"\{.*:.*\}", value):
        return f"{key}={_quoted_mapping(key, value)}"
    return f"{key}={','.join(map(_quoted, values))}"


def _split(values: str) -> list[str]:
    """The values between the commas that stand in no quotes or brackets."""
    parts, depth, mark = [""], 0, ""
    for character in values:
        if mark:
            mark = "" if character == mark and not parts[-1].endswith("\\") else mark
        elif character in "'\"" and not parts[-1].strip():
            mark = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and not (mark or depth > 0):
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _quoted(value: str) -> str:
    """A value that parses as it is; of a list or ``choice``, each element; any other in quotes."""
    if _parses(f"key={value}"):
        return value
    if several := re.fullmatch(r"(\[|(?:choice|shuffle|sort)\()([^][(){}]*)([\])])", value):
        return several[1] + ",".join(map(_quoted, _split(several[2]))) + several[3]
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    escaped = re.sub(r"(\\+)$", lambda found: found[1] * 2, escaped)
    return f"'{escaped}'"


def _quoted_mapping(key: str, value: str) -> str:
    """A mapping with its bare values quoted, such as hangul names."""
    quoted = re.sub(r":\s*([^\s'\",:{}\[\]][^'\",:{}\[\]]*)", r': "\1"', value)
    if _parses(f"{key}={quoted}"):
        return quoted
    what = f"Hydra cannot read the mapping {value}: its keys have to be numbers or ASCII names"
    fix = "put it into a YAML file of your own: --config-dir, or BUNRYU_CONFIG_DIR"
    raise ConfigError(what, where=key, fix=fix)


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
