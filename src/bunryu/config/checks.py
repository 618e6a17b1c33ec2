"""The first check of a composed config, before anything heavy is imported: keys, types, ranges, choices."""

from __future__ import annotations

import copy
import json
import math
import re
import typing
from collections.abc import Container, Iterator, Mapping
from itertools import chain
from types import NoneType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bunryu.config import schema
from bunryu.config.schema import KEYS, MISSING, MONITORED, MONITORS, NODES, REMOVABLE, Key
from bunryu.errors import ConfigError
from bunryu.keys import is_below, keys_of, leaves, nearest, value_at


def problems(config: DictConfig, shipped: DictConfig) -> Iterator[ConfigError]:
    """All that cannot work in a config, each naming its key and the fix: values first, then keys and types.

    Of a key, the keys below it and those that take their value from it only the first problem is named: the
    others follow from it. ``shipped`` has the same option of every group, and none of the user's values.
    """
    refused: set[str] = set()
    while True:
        try:
            values = schema.container(config)
            break
        except ConfigError as error:  # OmegaConf resolves nothing else until this interpolation is gone
            yield error
            if not error.where or error.where in refused:
                return
            refused.add(error.where)
            config = copy.deepcopy(config)
            OmegaConf.update(config, error.where, None, force_add=True)
    written = OmegaConf.to_container(config)
    for problem in chain(_value_problems(values), _shape_problems(values, shipped)):
        key = problem.where.lstrip("~")
        text = value_at(written, key)
        sources = re.findall(r"\$\{([\w.]+)\}", text) if isinstance(text, str) else []
        if not any(is_below(name, refused) for name in (key, *sources)):
            yield problem
        refused.add(key)


def _value_problems(values: Mapping[Any, Any]) -> Iterator[ConfigError]:
    """Values that cannot work: missing, out of range, no choice, a monitor that nothing logs."""
    for name in NODES:
        if not isinstance(values.get(name), dict):
            yield ConfigError(f"'{name}' is a group of keys, not a value", where=name, fix=f"{name}=<option>")
    for key, value in leaves(values):
        if problem := value_problem(key, value):
            yield problem
    yield from _label_name_problems(value_at(values, "corpus.label_names"))
    for key in MONITORS:
        monitor = value_at(values, key)
        if (key == "monitor" or monitor is not None) and (problem := _monitor_problem(str(monitor), key)):
            yield problem
    length, positions = values.get("max_seq_length"), value_at(values, "model.positions")
    if isinstance(length, int) and isinstance(positions, int) and length > positions:
        what = f"max_seq_length={length} is beyond the model's {positions} positions"
        yield ConfigError(what, where="max_seq_length", fix=f"max_seq_length={positions} or less")


def _label_name_problems(names: Any) -> Iterator[ConfigError]:
    """Labels and their names that YAML takes for something else than text: no and yes, 1.0, 010 as a name."""
    for label, name in names.items() if isinstance(names, dict) else ():
        for value in (name, "" if type(label) is int else label):
            if not isinstance(value, str):
                spelt = {"True": "yes", "False": "no"}.get(str(value), json.dumps(value))
                what = f"corpus.label_names has {value!r}, which is no text"
                fix = f"quote it as it is spelt: '{spelt}'; a quoted label is for a YAML file (--config-dir)"
                yield ConfigError(what, where="corpus.label_names", fix=fix)


def value_problem(key: str, value: Any) -> ConfigError | None:
    """The refusal of a value that its key never takes: missing, out of range, no choice."""
    row = KEYS.get(key, Key())
    choices, low, high = row.choices, row.low, math.inf if row.high is None else row.high
    if not set(key.split(".")).isdisjoint(schema.FORBIDDEN_KEYS):
        return schema.forbidden(key)
    if value == MISSING:
        return ConfigError(f"'{key}' has to be set", where=key, fix=f"{key}=<value>")
    if choices and low is None and value not in choices:
        return ConfigError(f"{key}={value!r} is no choice", where=key, fix=f"{key}={' or '.join(choices)}")
    if choices and isinstance(value, str) and value not in choices:
        return ConfigError(f"{key}={value!r} is no number", where=key, fix=f"{key}={choices[0]}, or a number")
    if low is not None and isinstance(value, int | float) and not (low <= value <= high and value < math.inf):
        bounds = f"at least {low}" if row.high is None else f"from {low} to {row.high}"
        return ConfigError(f"{key}={value} is out of range", where=key, fix=f"a value {bounds}")
    return None


def _monitor_problem(monitor: str, key: str) -> ConfigError | None:
    words = monitor.split()
    if len(words) == 2 and MONITORED.get(words[1]) == words[0]:
        return None
    near = nearest(words[-1] if words else "", MONITORED) or "val/loss"
    known = ", ".join(f"'{mode} {metric}'" for metric, mode in MONITORED.items())
    worst = words[1:] == [near]
    what = f"{key}='{monitor}' would keep the worst" if worst else f"nothing logs {key}='{monitor}'"
    return ConfigError(what, where=key, fix=f"{key}='{MONITORED[near]} {near}'; one of {known}")


def _shape_problems(values: Mapping[Any, Any], shipped: DictConfig) -> Iterator[ConfigError]:
    """Keys that do not exist or are missing, and values of another type than the shipped ones."""
    defaults = schema.container(shipped)
    present, known = dict.fromkeys(keys_of(values)), dict.fromkeys(keys_of(defaults))
    for key in known:
        if problem := _node_problem(key, values, defaults, present):
            yield problem
    for key in present:
        if key not in known and not _inside_target(key, defaults) and not _inside_target(key, values):
            near = nearest(key, sorted(known))
            fix = f"did you mean '{near}'?" if near else ""
            yield ConfigError(f"there is no key '{key}'", where=key, fix=fix)
    for key, value in leaves(values):
        if problem := type_problem(key, value, value_at(defaults, key)):
            yield problem


def _node_problem(
    key: str, values: Mapping[Any, Any], defaults: Mapping[Any, Any], present: Container[str]
) -> ConfigError | None:
    """A shipped key that was taken away, keys where a value ships, or a value where keys ship."""
    removable = key.startswith(REMOVABLE)
    if key not in present:
        node, _, name = key.rpartition(".")
        if removable and not (name == "_target_" and node in present):
            return None
        return ConfigError(f"'{key}' cannot be taken away", where=f"~{key}", fix=f"{key}=<value>")
    here, default = value_at(values, key), value_at(defaults, key)
    if isinstance(default, dict) and not isinstance(here, dict) and not (here is None and removable):
        fix = f"{key}.<key>=<value>, or an option of its group: {key.replace('.', '/')}=<option>"
        return ConfigError(f"'{key}' holds keys of its own, it cannot be a value", where=key, fix=fix)
    holds_value = default not in (None, MISSING) or _types(key, default)
    if isinstance(here, dict) and not isinstance(default, dict) and holds_value:
        return ConfigError(f"'{key}' is a value, it holds no keys", where=key, fix=f"{key}={spelt(default)}")
    return None


def _inside_target(key: str, values: Mapping[Any, Any]) -> bool:
    """Whether the key lies in a node that is instantiated, whose signature then judges it.

    A node itself counts below the top level: a callback or logger that a user adds.
    """
    parts = key.split(".")
    places = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    nodes = [value_at(values, place) for place in places if place != key or len(parts) > 1]
    return any(isinstance(node, dict) and "_target_" in node for node in nodes)


def type_problem(key: str, value: Any, default: Any) -> ConfigError | None:
    """The refusal of a value of another type than its key's or the shipped value's."""
    if key.endswith("._partial_") and default is True and value is not True:
        return ConfigError("bunryu adds arguments of its own here", where=key, fix=f"{key}=true")
    allowed = _types(key, default)
    if not allowed or (isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))):
        return None
    names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in allowed)
    what = f"{key}={value!r} is {type(value).__name__}, not {names}"
    return ConfigError(what, where=key, fix=f"{key}={spelt(default)}")


def spelt(value: Any) -> str:
    """A value as a command line has it."""
    return str(value) if isinstance(value, str) else json.dumps(value)


def _types(key: str, default: Any) -> tuple[type, ...]:
    """The types that a key takes; none for any type."""
    absent = default is None or default == MISSING
    if named := KEYS.get(key, Key()).type:
        kinds = typing.get_args(named) or (named,)
        return tuple(dict.fromkeys((*kinds, NoneType if absent else type(default))))
    if isinstance(default, float):
        return (float, int)
    return (type(default),) if isinstance(default, bool | str | int) and not absent else ()
