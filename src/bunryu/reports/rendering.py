"""The pages' templates, filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from bunryu.reports.svg import meter


def render(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[[Any], str]]) -> str:
    """The page of a file in templates/; all that is not ``Markup`` is escaped, a missing value an error."""
    text = resources.files("bunryu.reports").joinpath("templates", template).read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(meter=meter, **filters)
    return environment.from_string(text).render(values)
