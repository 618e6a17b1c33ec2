"""From a composed config to objects: what may be set, what may be named, and the one ``instantiate``."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from bunryu.errors import ConfigError

MONITORED = ("val/loss", "val/accuracy", "val/f1_macro")
# Packages a _target_ may start from; what it resolves to is judged as well.
PACKAGES = ("bunryu", "torch", "transformers", "pytorch_lightning")
# Loading options that could run code from a checkpoint, wherever they stand.
FORBIDDEN_KEYS = ("trust_remote_code", "weights_only", "use_safetensors")
INSTANTIATE_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")

# Lowest and highest value of numbers; None for no bound. Keys of groups too, whatever the option.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**32 - 1),
    "max_seq_length": (4, None),
    "batch_size": (1, None),
    "epochs": (1, None),
    "save_top_k": (1, None),
    "limit_rows": (1, None),
    "optimizer.lr": (0, None),
    "optimizer.weight_decay": (0, None),
    "model.lr": (0, None),
    "model.positions": (4, None),
    "model.vocabulary_size": (100, None),
    "datamodule.num_workers": (0, None),
    "corpus.cleaner.max_repeats": (0, None),
    "scheduler.factory.warmup": (0, 1),
    "trainer.max_epochs": (1, None),
    "trainer.accumulate_grad_batches": (1, None),
    "trainer.gradient_clip_val": (0, None),
    "trainer.log_every_n_steps": (1, None),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "batching": ("bucketed", "random"),
    "padding": ("longest", "max_length"),
}
# Types of the keys whose shipped value is null; every other key keeps its shipped value's type.
NULL_TYPES: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "limit_rows": (int,),
    "cache_dir": (str,),
    "model.positions": (int,),
    "model.vocabulary_file": (str,),
    "corpus.test": (str,),
    "corpus.pair_column": (str,),
    "corpus.encoding": (str,),
    "corpus.cleaner.allowed": (str,),
    "trainer.gradient_clip_val": (float, int),
}
# Keys that take more than their shipped value's type.
WIDER_TYPES: dict[str, tuple[type, ...]] = {
    "corpus.validation": (float, str),
    "seed": (int, type(None)),
    "accelerator.devices": (int, str, list),
    "accelerator.precision": (str, int),
    "trainer.gradient_clip_val": (float, int, type(None)),
}


def nearest(word: str, words: Iterator[str] | list[str]) -> str:
    """The most similar word, or an empty string."""
    found = difflib.get_close_matches(word, list(words), 1, cutoff=0.5)
    return found[0] if found else ""


def keys_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config, nodes included."""
    if isinstance(config, DictConfig):
        for key in config:
            yield f"{prefix}{key}"
            yield from keys_of(config._get_node(key), f"{prefix}{key}.")


def check(config: DictConfig, shipped: DictConfig) -> None:
    """First tier, without importing anything: keys, types, ranges, monitor, length.

    Args:
        config: the composed config.
        shipped: the same options of every group without the user's values.

    Raises:
        ConfigError: naming the key, the nearest valid key and the fix.
    """
    _check_forbidden(config)
    _check_keys(config, shipped)
    _check_values(config, shipped)
    _check_monitor(config)
    positions = config.model.get("positions")
    if positions is not None and config.max_seq_length > positions:
        raise ConfigError(
            f"max_seq_length={config.max_seq_length} is beyond the model's {positions} positions",
            where="max_seq_length",
            fix=f"max_seq_length={positions} or less",
        )


def _check_forbidden(config: DictConfig) -> None:
    for key in keys_of(config):
        if key.rsplit(".", 1)[-1] in FORBIDDEN_KEYS:
            raise ConfigError("this is never set by a config: it could let a checkpoint run code", where=key)


def _check_keys(config: DictConfig, shipped: DictConfig) -> None:
    known = list(keys_of(shipped))
    for key in keys_of(config):
        if key in known or _inside_target(key, shipped) or _inside_target(key, config):
            continue
        parent = next((key[:i] for i, c in enumerate(key) if c == "." and key[:i] not in known), key)
        near = nearest(parent, known)
        raise ConfigError(f"there is no key '{parent}'", where=parent, fix=f"did you mean '{near}'?" if near else "")


def _inside_target(key: str, config: DictConfig) -> bool:
    """Whether some node above the key is instantiated, whose signature then judges it."""
    parts = key.split(".")
    return any(
        isinstance(node := OmegaConf.select(config, ".".join(parts[:n])), DictConfig) and "_target_" in node
        for n in range(1, len(parts))
    )


def _check_values(config: DictConfig, shipped: DictConfig) -> None:
    for key, value in _leaves(config):
        if value == "???":
            raise ConfigError(f"'{key}' has to be set", where=key, fix=f"{key}=<value>")
        default = OmegaConf.select(shipped, key)
        allowed = WIDER_TYPES.get(key) or _types_like(key, default)
        if allowed and not _fits(value, allowed):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            raise ConfigError(
                f"{key}={value!r} is {type(value).__name__}, not {names}", where=key, fix=f"{key}={default}"
            )
        if key in CHOICES and value not in CHOICES[key]:
            raise ConfigError(
                f"{key}={value!r} is no choice", where=key, fix=f"{key}={' or '.join(CHOICES[key])}"
            )
        low, high = RANGES.get(key, (None, None))
        if isinstance(value, int | float) and not (
            (low is None or value >= low) and (high is None or value <= high)
        ):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ConfigError(f"{key}={value} is out of range", where=key, fix=f"a value {bounds}")


def _leaves(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in config:
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from _leaves(node, f"{prefix}{key}.")
        else:
            missing = OmegaConf.is_missing(config, key)
            yield f"{prefix}{key}", "???" if missing else _plain(OmegaConf.select(config, str(key)), config, key)


def _plain(selected: Any, config: DictConfig, key: Any) -> Any:
    value = config[key] if selected is None else selected
    return OmegaConf.to_container(value) if isinstance(value, ListConfig) else value


def _types_like(key: str, default: Any) -> tuple[type, ...]:
    if default is None or default == "???":
        return (*NULL_TYPES[key], type(None)) if key in NULL_TYPES else ()
    if isinstance(default, bool) or isinstance(default, str):
        return (type(default),)
    if isinstance(default, float):
        return (float, int)
    return (int,) if isinstance(default, int) else ()


def _fits(value: Any, allowed: tuple[type, ...]) -> bool:
    return isinstance(value, allowed) and not (isinstance(value, bool) and bool not in allowed)


def _check_monitor(config: DictConfig) -> None:
    words = str(config.monitor).split()
    if len(words) != 2 or words[0] not in ("min", "max") or words[1] not in MONITORED:
        near = nearest(words[-1] if words else "", list(MONITORED)) or MONITORED[0]
        mode = words[0] if words and words[0] in ("min", "max") else "min" if near == "val/loss" else "max"
        raise ConfigError(
            f"nothing logs monitor='{config.monitor}'",
            where="monitor",
            fix=f"monitor='{mode} {near}'; min or max and one of {', '.join(MONITORED)}",
        )


def plain(config: DictConfig) -> dict[str, Any]:
    """The config resolved to plain values, except that secrets stay as ``${oc.env:NAME}``."""

    def keep(*parts: Any) -> str:
        return "${oc.env:" + ",".join(str(part) for part in parts) + "}"

    from omegaconf.resolvers import oc

    OmegaConf.register_new_resolver("oc.env", keep, replace=True)
    try:
        container = OmegaConf.to_container(config.copy(), resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, use_cache=False, replace=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check_targets(node: Any, where: str = "") -> None:
    """Second tier: resolve every ``_target_``, judge what it is, and bind its keys to its signature.

    Imports the libraries the config names; calls nothing.

    Raises:
        ConfigError: naming the node and the nearest valid key.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, where)
        for key, value in node.items():
            check_targets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            check_targets(value, f"{where}.{index}")


def instantiate(node: Mapping[str, Any]) -> Any:
    """Make what a config node describes; the only way from a config to an object.

    Raises:
        ConfigError: if a target is not allowed or refuses its arguments.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    check_targets(node)
    try:
        return hydra_instantiate(OmegaConf.create(dict(node)), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"{type(cause).__name__}: {cause}", where=str(node.get("_target_"))) from error


def _check_call(node: Mapping[str, Any], where: str) -> None:
    target = resolve(str(node["_target_"]), f"{where}._target_" if where else "_target_")
    names = _parameters(target)
    for key in node:
        if key in INSTANTIATE_KEYS or key in names:
            continue
        near = nearest(str(key), sorted(names))
        raise ConfigError(
            f"{node['_target_']} takes no '{key}'",
            where=f"{where}.{key}" if where else str(key),
            fix=f"did you mean '{near}'?" if near else f"it takes {', '.join(sorted(names))}",
        )


def resolve(path: str, where: str) -> Callable[..., Any]:
    """The class or listed function that a dotted path names, if a config may call it.

    Judged is the object itself, so an alias through an allowed package does not pass.

    Raises:
        ConfigError: if it does not exist or is not allowed.
    """
    if path.split(".", 1)[0] not in PACKAGES:
        raise _refused(path, where)
    found = _locate(path, where)
    if not _allowed(found):
        raise _refused(path, where)
    allowed: Callable[..., Any] = found
    return allowed


def _locate(path: str, where: str) -> Any:
    parts = path.split(".")
    found: Any = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], 1):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        if not inspect.ismodule(found):
            raise ConfigError(f"'{'.'.join(parts[:index])}' has no '{part}'", where=where)
        if found.__name__.split(".", 1)[0] not in PACKAGES:
            raise _refused(path, where)
        try:
            found = importlib.import_module(f"{found.__name__}.{part}")
        except ImportError as error:
            near = nearest(part, dir(found))
            raise ConfigError(
                f"'{path}' cannot be imported: {error}", where=where, fix=f"did you mean '{near}'?" if near else ""
            ) from error
    return found


def _allowed(found: Any) -> bool:
    import pytorch_lightning as pl
    import torch
    import transformers

    from bunryu import task

    if inspect.ismethod(found):  # Class.from_pretrained
        owner = found.__self__
        auto = (transformers.AutoTokenizer, transformers.AutoModelForSequenceClassification)
        return found.__name__ == "from_pretrained" and (
            owner in auto or (inspect.isclass(owner) and issubclass(owner, transformers.PreTrainedModel))
        )
    if not inspect.isclass(found):
        return found in (task.linear_warmup, task.cosine_warmup)
    families = (
        torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, transformers.PreTrainedModel,
        transformers.PreTrainedConfig, pl.Trainer, pl.Callback, pl.loggers.Logger,
        pl.profilers.Profiler,
    )  # fmt: skip
    return found.__module__.startswith("bunryu.") or issubclass(found, families)


def _parameters(target: Callable[..., Any]) -> set[str]:
    """The keys a target's signature takes; for transformers' open-ended ones, an architecture's keys."""
    parameters = inspect.signature(target).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if inspect.ismethod(target):
        from transformers import BertConfig

        from bunryu.model import LOADING

        if "Tokenizer" in target.__self__.__name__:
            return {"do_lower_case", "strip_accents", "revision", "force_download", "local_files_only"}
        return LOADING | _parameters(BertConfig)
    return names


def _refused(path: str, where: str) -> ConfigError:
    return ConfigError(
        f"'{path}' may not be called from a config",
        where=where,
        fix="a class of bunryu, or an optimizer, scheduler, model, callback or logger of "
        "torch, transformers or pytorch_lightning",
    )


def quote(override: str) -> str:
    """A command-line override as Hydra's grammar wants it: a value it cannot parse is taken as text.

    ``output_root=/drive/My Drive (1)/it's`` comes out quoted; what parses stays as it is.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@:-]+", key):
        return override
    try:
        OverridesParser.create().parse_override(override)
    except OverrideParseException:
        escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
        escaped = re.sub(r"(\\+)$", lambda found: found[1] * 2, escaped)
        return f"{key}='{escaped}'"
    return override
