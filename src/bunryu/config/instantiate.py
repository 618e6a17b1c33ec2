"""From config nodes to objects: every target is judged before anything is made, and made in one place."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bunryu.config.schema import FORBIDDEN_KEYS, forbidden
from bunryu.config.targets import NAMED, check_name, own_packages, parameters_of, resolve, takes_any
from bunryu.errors import BunryuError, ConfigError
from bunryu.keys import nearest

# What the recipe passes itself, and where it is set instead.
FILLED_IN = {
    **{f"datamodule.{name}": "corpus=…" for name in ("train", "validation", "test", "pad_id")},
    **dict.fromkeys(("datamodule.seed", "task.seed"), "seed=…"),
    "task.model": "model=…",
    "task.optimizer": "optimizer=…",
    "task.schedule": "scheduler=…",
    "task.total_steps": "epochs=…",
    "task.log_every": "trainer.log_every_n_steps=…",
    "trainer.default_root_dir": "output_root=…",
    "trainer.callbacks": "callbacks=…, or +callbacks.<name>._target_=…",
    "trainer.logger": "logger=…",
    "trainer.plugins": "checkpoints are the run's own",
    "model.architecture.vocab_size": "model.vocabulary_size=…",
    "model.architecture.max_position_embeddings": "model.positions=…",
    "model.architecture.pad_token_id": "the tokenizer has it",
    **{f"model.architecture.{name}": "corpus.label_names=…" for name in ("id2label", "label2id")},
    "optimizer.params": "the model has them",
}
# What the recipe asks of what is made here, whoever wrote it; a callback's and a logger's by any name.
NEEDED: dict[str, tuple[str, ...]] = {
    "corpus": ("read",),
    "corpus.cleaner": ("__call__",),
    "model": ("tokenizer", "classifier"),
    "optimizer": ("step", "zero_grad"),
    "scheduler": ("of",),
    "datamodule": ("train_dataloader",),
    "task": ("training_step",),
    "trainer": ("fit", "test"),
    "callbacks.*": ("on_fit_start",),
    "logger.*": ("log_metrics",),
}
# What Lightning's own parts take for places of files, which is the run's business, and for names there.
FOLDER_KEYS = ("artifact_location", "dir", "dirpath", "save_dir", "tracking_uri")
NAME_KEYS = ("filename", "name", "sub_dir", "version")
OUTSIDE = re.compile(r"^[/~]|(^|/)\.\.(/|$)|://|\$(?!\{oc\.env:)")
INSTANTIATE_KEYS = ("_target_", "_partial_")


class Judged(dict[str, Any]):
    """A node that ``check_targets`` has judged, with the object that its ``_target_`` names.

    Only such nodes are made, and only this object is called. A run judges its whole config once; a node that
    is not judged yet, or a changed copy of one that was, is judged when it is made.
    """

    def __init__(self, target: Callable[..., Any], node: Mapping[str, Any]) -> None:
        super().__init__(node)
        self.target = target


def check_targets(node: Any, where: str = "") -> Any:
    """The node with each mapping that has a ``_target_`` as ``Judged``, at any depth.

    Imports the libraries the config names and calls nothing. Refused are targets that are not allowed or do
    not fit their place, and keys that they do not take.
    """
    check_names(node, where)
    return _judged(node, where)


def instantiate(node: Mapping[str, Any], where: str = "") -> Any:
    """Make what a config node describes; the only way from a config to an object.

    Values are plain: no text is evaluated, as OmegaConf's interpolations would be. With ``_partial_`` the
    other keys are bound without a call.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError("there is no _target_", where=where, fix=f"{below(where, '_target_')}=<class>")
    return _made(node if isinstance(node, Judged) else check_targets(node, where), where)


def call(factory: Callable[..., Any], where: str, *arguments: Any, **keywords: Any) -> Any:
    """Call what ``instantiate`` made of a ``_partial_`` node; what it refuses is a ConfigError."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        return factory(*arguments, **keywords)
    except (TypeError, ValueError, MisconfigurationException, ModuleNotFoundError) as error:
        raise ConfigError(f"{type(error).__name__}: {error}", where=where) from error


def below(where: str, key: object) -> str:
    """The dotted key of what stands below another one."""
    return f"{where}.{key}" if where else str(key)


def check_names(node: Any, where: str) -> None:
    """Refuse forbidden keys and foreign targets by name alone, with nothing imported."""
    own = own_packages()
    for place, mapping in mappings(node, where):
        for key in mapping:
            if key in FORBIDDEN_KEYS:
                raise forbidden(below(place, key))
        if "_target_" in mapping:
            check_name(str(mapping["_target_"]), below(place, "_target_"), own)


def mappings(node: Any, where: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping at any depth, in lists too, with where it stands."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        yield where, node
        parts = node.items()
    elif isinstance(node, list):
        parts = enumerate(node)
    for key, value in parts:
        yield from mappings(value, below(where, key))


def _judged(node: Any, where: str) -> Any:
    if isinstance(node, list):
        return [_judged(value, below(where, index)) for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    target = _target_of(node, where) if "_target_" in node else None
    parts = {key: _judged(value, below(where, key)) for key, value in node.items()}
    return parts if target is None else Judged(target, parts)


def _made(node: Any, where: str) -> Any:
    """The node with everything in it made, innermost first."""
    if isinstance(node, list):
        return [_made(value, below(where, index)) for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    made = {key: _made(value, below(where, key)) for key, value in node.items()}
    if not isinstance(node, Judged):
        return made
    arguments = {key: value for key, value in made.items() if key not in INSTANTIATE_KEYS}
    if node.get("_partial_"):
        return functools.partial(node.target, **arguments)
    try:
        return node.target(**arguments)
    except BunryuError:
        raise
    except Exception as error:  # whatever a class raises at arguments it cannot use
        raise ConfigError(f"{type(error).__name__}: {error}", where=where or str(node["_target_"])) from error


def _target_of(node: Mapping[str, Any], where: str) -> Callable[..., Any]:
    """The object that a node's ``_target_`` names, if it may be called here with the node's keys."""
    target = resolve(str(node["_target_"]), below(where, "_target_"))
    if not isinstance(node.get("_partial_", False), bool):
        raise ConfigError("_partial_ is true or false", where=below(where, "_partial_"))
    if inspect.isclass(target):
        _check_role(target, node, where)
    kernel = node.get("attn_implementation")
    if kernel is not None and not re.fullmatch(r"\w+", str(kernel)):  # transformers would fetch and run it
        place = below(where, "attn_implementation")
        raise ConfigError(f"'{kernel}' is code from elsewhere", where=place, fix="sdpa or eager")
    _check_keys(target, node, where)
    return target


def _check_role(target: type, node: Mapping[str, Any], where: str) -> None:
    """Refuse a class that is not what its place asks for, or that lacks arguments it cannot do without."""
    group, _, rest = where.partition(".")
    place = f"{group}.*" if group in ("callbacks", "logger") and "." not in rest else where
    if lacking := [name for name in NEEDED.get(place, ()) if not callable(getattr(target, name, None))]:
        what = f"{node['_target_']} has no {lacking[0]}(): it cannot be used here"
        fix = f"a class with {'() and '.join(NEEDED[place])}()"
        raise ConfigError(what, where=below(where, "_target_"), fix=fix)
    parameters = inspect.signature(target).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind in NAMED]
    if not node.get("_partial_") and (missing := [name for name in required if name not in node]):
        fix = f"+{below(where, missing[0])}=<value>"
        raise ConfigError(f"{node['_target_']} needs '{missing[0]}'", where=where, fix=fix)


def _check_keys(target: Callable[..., Any], node: Mapping[str, Any], where: str) -> None:
    """Refuse keys that the recipe fills in itself, and those that the target does not take."""
    names = parameters_of(target)
    for key in node:
        place = below(where, key)
        if place in FILLED_IN:
            raise ConfigError(f"'{key}' is filled in by bunryu", where=place, fix=FILLED_IN[place])
        if target.__module__.startswith("pytorch_lightning."):
            _check_place(str(key), node, place)
        if key in INSTANTIATE_KEYS or key in names or takes_any(target):
            continue
        near = nearest(str(key), sorted(names))
        fix = f"did you mean '{near}'?" if near else f"it takes {', '.join(sorted(names))}"
        raise ConfigError(f"{node['_target_']} takes no '{key}'", where=place, fix=fix)


def _check_place(key: str, node: Mapping[str, Any], place: str) -> None:
    """Refuse what would have one of Lightning's parts write outside the run, or over its metrics.csv."""
    value = "" if node[key] is None else str(node[key])
    own = key == "version" and value == str(node[key]) and not Path(str(node.get("name") or ""), value).parts
    elsewhere = key in FOLDER_KEYS and value and not value.startswith(("http://", "https://"))
    if own or elsewhere or (key in NAME_KEYS and OUTSIDE.search(value)):
        what = f"'{value}' is no name of a file or folder within the run directory"
        raise ConfigError(what, where=place, fix=f"leave '{key}' out")
