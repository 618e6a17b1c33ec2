"""From config nodes to objects: recorded, checked, and the one ``instantiate``."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from bunryu.checks import FORBIDDEN_KEYS, NODES, container, nearest
from bunryu.errors import BunryuError, ConfigError
from bunryu.runs import Run
from bunryu.targets import NAMED, check_name, own_packages, parameters_of, resolve, takes_any

# What a recorded config may take from outside itself; nothing else in it is looked up or computed.
REFERENCE = re.compile(r"\$\{oc\.env:([^,{}]+)(?:,([^{}]*))?\}")
# What the recipe passes itself, by node, and where it is set instead.
FILLED_IN: dict[str, dict[str, str]] = {
    "datamodule": dict.fromkeys(("train", "validation", "test", "pad_id"), "corpus=…") | {"seed": "seed=…"},
    "task": {
        "model": "model=…",
        "optimizer": "optimizer=…",
        "schedule": "scheduler=…",
        "total_steps": "epochs=…",
        "seed": "seed=…",
        "log_every": "trainer.log_every_n_steps=…",
    },
    "trainer": {
        "default_root_dir": "output_root=…",
        "callbacks": "callbacks=…, or +callbacks.<name>._target_=…",
        "logger": "logger=…",
        "plugins": "checkpoints are the run's own",
    },
    "model.architecture": {
        "vocab_size": "model.vocabulary_size=…",
        "max_position_embeddings": "model.positions=…",
        "pad_token_id": "the tokenizer has it",
        "id2label": "corpus.label_names=…",
        "label2id": "corpus.label_names=…",
    },
    "optimizer": {"params": "the model has them"},
}
# What the recipe asks of what is made here, whoever wrote it; a callback's and a logger's by any name.
NEEDED: dict[str, tuple[str, ...]] = {
    "corpus": ("read",),
    "corpus.cleaner": ("__call__",),
    "model": ("tokenizer", "classifier"),
    "optimizer": ("step", "zero_grad"),
    "datamodule": ("train_dataloader",),
    "task": ("training_step",),
    "trainer": ("fit", "test"),
    "callbacks.*": ("on_fit_start",),
    "logger.*": ("log_metrics",),
}
INSTANTIATE_KEYS = ("_target_", "_partial_")


def plain(config: DictConfig) -> dict[str, Any]:
    """The config resolved to plain values, except that secrets stay as ``${oc.env:NAME}``.

    Raises:
        ConfigError: for what could not be recorded so that ``resolved`` gives it back.
    """

    def keep(*parts: Any) -> str:
        return "${oc.env:" + ",".join("null" if part is None else str(part) for part in parts) + "}"

    values = container(config)
    OmegaConf.register_new_resolver("oc.env", keep, replace=True)
    try:
        written = container(config.copy())
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, use_cache=False, replace=True)
    _check_written(values, written, "")
    return {str(key): value for key, value in written.items()}


def resolved(run: Run, *keys: str) -> dict[str, Any]:
    """The run's config with secrets filled in from the environment; never written anywhere.

    Only ``${oc.env:NAME}`` and ``${oc.env:NAME,default}`` mean anything: a run directory comes from anywhere.

    Args:
        run: its config is read anew.
        keys: only these of the top level, so that what is not used needs no secret; all if none are given.

    Raises:
        ConfigError: for any other interpolation, and for a variable that is not set.
    """
    config = run.config
    for name in NODES:
        if not isinstance(config.get(name), dict):
            raise ConfigError(f"config.yaml has no {name}", where=str(run.path), fix="another run directory")
    _check_names(config, "")
    return {str(key): filled(value, str(key)) for key, value in config.items() if key in (keys or config)}


def check_targets(node: Any, where: str = "") -> None:
    """Second tier: resolve every ``_target_``, judge what it is, and bind its keys to its signature.

    Imports the libraries the config names; calls nothing.

    Raises:
        ConfigError: naming the node and the nearest valid key.
    """
    _check_names(node, where)
    for place, mapping in _mappings(node, where):
        if "_target_" in mapping:
            _check_call(mapping, place)


def instantiate(node: Mapping[str, Any], where: str = "") -> Any:
    """Make what a config node describes; the only way from a config to an object.

    What was judged is what is called, with plain values: no name is looked up twice and no text is
    evaluated, as OmegaConf's interpolations would be.

    Args:
        node: plain values with a ``_target_``; ``_partial_`` to bind the other keys without calling.
        where: the node's key, for errors.

    Raises:
        ConfigError: if a target is not allowed or refuses its arguments.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError("there is no _target_", where=where, fix=f"{_below(where, '_target_')}=<class>")
    check_targets(node, where)
    return _made(node, where)


def call(factory: Callable[..., Any], where: str, *arguments: Any, **keywords: Any) -> Any:
    """Call what ``instantiate`` made of a ``_partial_`` node; what it refuses is a configuration error.

    Raises:
        ConfigError: naming the node.
    """
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        return factory(*arguments, **keywords)
    except (TypeError, ValueError, MisconfigurationException, ModuleNotFoundError) as error:
        raise ConfigError(f"{type(error).__name__}: {error}", where=where) from error


def _check_written(value: Any, written: Any, where: str) -> None:
    """Refuse what ``filled`` would not turn back into the value."""
    if isinstance(value, dict) and isinstance(written, dict):
        for key in value:
            _check_written(value[key], written[key], _below(where, key))
    elif isinstance(value, list) and isinstance(written, list):
        for index, pair in enumerate(zip(value, written, strict=True)):
            _check_written(*pair, _below(where, index))
    elif isinstance(written, str) and _inert(written, where) != written and not isinstance(value, str | None):
        raise ConfigError(
            "only text from the environment can be recorded without its value",
            where=where,
            fix=f"{where}=$NAME, which the shell fills in",
        )


def _inert(text: str, where: str) -> str:
    """The text without its references to the environment; refused if anything else were looked up."""
    rest = REFERENCE.sub("", text)
    if "${" in rest:
        raise ConfigError(
            "only ${oc.env:NAME} and ${oc.env:NAME,default} can stand in a recorded config", where=where
        )
    return rest


def filled(value: Any, where: str) -> Any:
    """A recorded value with its references to the environment replaced by what they stand for.

    Raises:
        ConfigError: for any other interpolation, and for a variable that is not set.
    """
    if isinstance(value, dict):
        return {key: filled(part, _below(where, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, _below(where, index)) for index, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    _inert(value, where)
    whole = REFERENCE.fullmatch(value)
    if whole and whole[2] == "null" and whole[1] not in os.environ:
        return None
    return REFERENCE.sub(lambda found: _from_environment(found[1], found[2], where), value)


def _from_environment(name: str, default: str | None, where: str) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigError(
            f"the environment variable {name} is not set", where=where, fix=f"export {name}=<its value>"
        )
    return value


def _below(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _made(node: Any, where: str) -> Any:
    """The node with everything in it made, innermost first; checked before."""
    if isinstance(node, list):
        return [_made(value, _below(where, index)) for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    made = {key: _made(value, _below(where, key)) for key, value in node.items()}
    if "_target_" not in node:
        return made
    target = resolve(str(node["_target_"]), _below(where, "_target_"))
    arguments = {key: value for key, value in made.items() if key not in INSTANTIATE_KEYS}
    if node.get("_partial_"):
        return functools.partial(target, **arguments)
    try:
        return target(**arguments)
    except BunryuError:
        raise
    except Exception as error:  # whatever a class raises at arguments it cannot use
        raise ConfigError(f"{type(error).__name__}: {error}", where=where or str(node["_target_"])) from error


def _mappings(node: Any, where: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping at any depth, in lists too, with where it stands."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        yield where, node
        parts = node.items()
    elif isinstance(node, list):
        parts = enumerate(node)
    for key, value in parts:
        yield from _mappings(value, _below(where, key))


def _check_names(node: Any, where: str) -> None:
    """What can be refused by name alone, with nothing imported."""
    own = own_packages()
    for place, mapping in _mappings(node, where):
        for key in mapping:
            if key in FORBIDDEN_KEYS:
                raise ConfigError(
                    "this is never set by a config: it could let a checkpoint run code",
                    where=_below(place, key),
                )
        if "_target_" in mapping:
            check_name(str(mapping["_target_"]), _below(place, "_target_"), own)


def _check_call(node: Mapping[str, Any], where: str) -> None:
    target = resolve(str(node["_target_"]), _below(where, "_target_"))
    if not isinstance(node.get("_partial_", False), bool):
        raise ConfigError("_partial_ is true or false", where=_below(where, "_partial_"))
    _check_role(target, node, where)
    kernel = node.get("attn_implementation")
    if kernel is not None and not re.fullmatch(r"\w+", str(kernel)):  # transformers would fetch and run it
        raise ConfigError(
            f"'{kernel}' is code from elsewhere",
            where=_below(where, "attn_implementation"),
            fix="sdpa or eager",
        )
    names = parameters_of(target)
    for key in node:
        if key in FILLED_IN.get(where, ()):
            raise ConfigError(
                f"'{key}' is filled in by bunryu", where=_below(where, key), fix=FILLED_IN[where][key]
            )
        if key in INSTANTIATE_KEYS or key in names or takes_any(target):
            continue
        near = nearest(str(key), sorted(names))
        raise ConfigError(
            f"{node['_target_']} takes no '{key}'",
            where=_below(where, key),
            fix=f"did you mean '{near}'?" if near else f"it takes {', '.join(sorted(names))}",
        )


def _check_role(target: Callable[..., Any], node: Mapping[str, Any], where: str) -> None:
    """Refuse a class that is not what its place asks for, or that lacks arguments it cannot do without."""
    if not inspect.isclass(target):
        return
    group, _, below = where.partition(".")
    place = f"{group}.*" if group in ("callbacks", "logger") and "." not in below else where
    if lacking := [name for name in NEEDED.get(place, ()) if not callable(getattr(target, name, None))]:
        raise ConfigError(
            f"{node['_target_']} has no {lacking[0]}(): it cannot be used here",
            where=_below(where, "_target_"),
            fix=f"a class with {'() and '.join(NEEDED[place])}()",
        )
    parameters = inspect.signature(target).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind in NAMED]
    if not node.get("_partial_") and (missing := [name for name in required if name not in node]):
        raise ConfigError(
            f"{node['_target_']} needs '{missing[0]}'",
            where=where,
            fix=f"+{_below(where, missing[0])}=<value>",
        )
