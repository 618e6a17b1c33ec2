"""Secrets from the environment, and texts without them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SHORTEST_SECRET = 4  # characters; a shorter value would be masked inside ordinary words


def secrets_in(text: str) -> dict[str, str]:
    """Values of the environment variables that a config's text names, each with its ``${oc.env:NAME}``.

    A value stands there as it is and as Python, JSON and a URL spell it, the longest first.
    """
    found = {}
    for name in re.findall(r"\$\{oc\.env:([^,}]+)", text):
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            for spelt in (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe="")):
                found[spelt] = f"${{oc.env:{name}}}"
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def mask(facts: Any, secrets: Mapping[str, str]) -> Any:
    """The facts with every secret in their texts replaced by its ``${oc.env:NAME}``."""
    if isinstance(facts, str):
        for value, written in secrets.items():
            facts = facts.replace(value, written)
    elif isinstance(facts, Mapping):
        return {key: mask(value, secrets) for key, value in facts.items()}
    elif isinstance(facts, list):
        return [mask(value, secrets) for value in facts]
    return facts
