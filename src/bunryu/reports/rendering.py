"""The pages' templates, filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bunryu.reports.svg import meter


def render(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[[Any], str]]) -> str:
    """The page of a file in templates/; all that is not ``Markup`` is escaped, a missing value an error."""
    loader, missing = PackageLoader("bunryu.reports"), StrictUndefined
    environment = Environment(
        loader=loader, autoescape=True, undefined=missing, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(meter=meter, **filters)
    return environment.get_template(template).render(values)
