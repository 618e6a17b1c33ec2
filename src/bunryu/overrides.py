"""Command-line overrides as Hydra's grammar wants them, though the shell and people write them otherwise."""

from __future__ import annotations

import re

from bunryu.checks import GROUPS
from bunryu.errors import ConfigError


def quote(override: str) -> str:
    """A command-line override as Hydra's grammar wants it: a value it cannot parse is taken as text.

    ``output_root=/drive/My Drive (1)/it's`` comes out quoted; what parses stays as it is.

    Raises:
        ConfigError: for a mapping that cannot be quoted, and one where a group's option belongs.
    """
    key, equals, value = override.partition("=")
    if key.lstrip("+~") in GROUPS and re.search(r"[{}]|\[.*\[", value):
        raise ConfigError("a group takes the name of one of its options", where=key, fix=f"{key}=<option>")
    if override.startswith("-") or not equals or not re.fullmatch(r"[+~]{0,2}[\w./@:-]+", key):
        return override
    if _parses(override):
        return override
    if re.fullmatch(r"\{.*:.*\}", value):
        return f"{key}={_quoted_mapping(key, value)}"
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    escaped = re.sub(r"(\\+)$", lambda found: found[1] * 2, escaped)
    return f"{key}='{escaped}'"


def _quoted_mapping(key: str, value: str) -> str:
    """A mapping with its bare values quoted, such as hangul names."""
    quoted = re.sub(r":\s*([^\s'\",:{}\[\]][^'\",:{}\[\]]*)", r': "\1"', value)
    if _parses(f"{key}={quoted}"):
        return quoted
    raise ConfigError(
        f"Hydra cannot read the mapping {value}: its keys have to be numbers or ASCII names",
        where=key,
        fix="put it into a YAML file of your own: --config-dir, or BUNRYU_CONFIG_DIR",
    )


def _parses(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
