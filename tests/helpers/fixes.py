"""Whether what errors tell to type can be typed: every ``key=value`` of a fix is one that a config takes."""

from __future__ import annotations

import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bunryu.config import schema
from bunryu.config.checks import type_problem, value_problem
from bunryu.config.compose import composed, composing
from bunryu.config.overrides import quote
from bunryu.errors import BunryuError
from bunryu.keys import keys_of, value_at
from bunryu.system.locations import conf_dir

# At the start of a fix, or after what parts one advice from the next.
TOLD = re.compile(
    r"(?:^|[;,] |\bor |\bset |\bmean )['\"]?"
    r"([+~]{0,2}([a-z_]+(?:[./][\w./]+)*)=('[^']*'|\[[^]]*\]|[^\s;,'\"?]+))"
)
PLACEHOLDER = re.compile(r"[<…$]|^(key|group)=")  # left to the user
BASES = (
    ["corpus=table", "model=pretrained"],
    [
        "corpus=nsmc",
        "accelerator=tpu",
        "scheduler=linear_warmup",
        "callbacks=early_stopping",
        "optimizer=sgd",
    ],
    ["scheduler=plateau"],
    [],
)

_told: dict[str, str] = {}  # by the key


def record_fixes() -> None:
    """Remember the fix of every error made from now on."""
    make = BunryuError.__init__

    def remember(self: BunryuError, what: str, *, where: str = "", fix: str = "") -> None:
        make(self, what, where=where, fix=fix)
        _told.update({told: key for told, key, _ in TOLD.findall(fix) if not PLACEHOLDER.search(told)})

    BunryuError.__init__ = remember  # type: ignore[method-assign]


def wrong_fixes() -> list[str]:
    """Those that were told and cannot be typed."""
    with composing():
        shipped = [
            schema.container(composed([*base, "+corpus.train=x", "model.name=x"])[0]) for base in BASES
        ]
    return sorted(told for told, key in list(_told.items()) if not _can_be_typed(told, key, shipped))


def _can_be_typed(told: str, key: str, shipped: list[dict[Any, Any]]) -> bool:
    try:
        override = OverridesParser.create().parse_override(quote(shlex.split(told)[0]))
    except (HydraException, ValueError):
        return False
    if override.is_sweep_override() or told.startswith(("+", "hydra.", "hydra/")):
        return True
    value = override.value()
    if key in schema.GROUPS:
        return (conf_dir() / key / f"{value}.yaml").is_file()
    known = [values for values in shipped if key in keys_of(values)]
    return value_problem(key, value) is None and any(
        type_problem(key, value, value_at(values, key)) is None for values in known
    )
