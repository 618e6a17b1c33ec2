"""The first look at a composed config, before anything heavy is imported: keys, types, ranges."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bunryu.errors import ConfigError

# What may choose the best checkpoint, and which way is better.
MONITORED = {"val/loss": "min", "val/accuracy": "max", "val/f1_macro": "max"}
MONITORS = ("monitor", "callbacks.best_checkpoint.monitor", "callbacks.early_stopping.monitor")
NODES = ("model", "corpus", "accelerator", "optimizer", "scheduler", "datamodule", "task", "trainer")
GROUPS = (*NODES[:5], "corpus/cleaner", "callbacks", "logger", "experiment", "debug", "sweep", "hydra")
# Loading options that could run code from a checkpoint, wherever they stand.
FORBIDDEN_KEYS = ("trust_remote_code", "weights_only", "use_safetensors")

# Lowest and highest value of numbers; None for no bound. Keys of groups too, whatever the option.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**32 - 1),
    "max_seq_length": (4, None),
    "batch_size": (0, None),
    "epochs": (1, None),
    "checkpoint_every_minutes": (0, None),
    "save_top_k": (1, None),
    "limit_rows": (1, None),
    "n_jobs": (1, None),
    "budget_hours": (0, None),
    "accelerator.devices": (1, None),
    "accelerator.widths": (1, None),
    "optimizer.lr": (0, None),
    "optimizer.weight_decay": (0, None),
    "optimizer.eps": (0, None),
    "optimizer.momentum": (0, None),
    "model.lr": (0, None),
    "model.positions": (4, None),
    "model.vocabulary_size": (100, None),
    "model.architecture.hidden_size": (1, None),
    "model.architecture.num_hidden_layers": (1, None),
    "model.architecture.num_attention_heads": (1, None),
    "model.architecture.intermediate_size": (1, None),
    "model.architecture.hidden_dropout_prob": (0, 1),
    "model.architecture.attention_probs_dropout_prob": (0, 1),
    "corpus.split_seed": (0, 2**32 - 1),
    "datamodule.batch_size": (0, None),
    "datamodule.max_seq_length": (4, None),
    "datamodule.num_workers": (0, None),
    "callbacks.best_checkpoint.save_top_k": (1, None),
    "callbacks.early_stopping.patience": (0, None),
    "callbacks.early_stopping.min_delta": (0, None),
    "corpus.cleaner.max_repeats": (0, None),
    "scheduler.factory.warmup": (0, 1),
    "scheduler.factory.gamma": (0, None),
    "scheduler.factory.factor": (0, None),
    "scheduler.factory.total_iters": (0, None),
    "trainer.max_epochs": (1, None),
    "trainer.accumulate_grad_batches": (1, None),
    "trainer.gradient_clip_val": (0, None),
    "trainer.log_every_n_steps": (1, None),
    "trainer.num_sanity_val_steps": (-1, None),
}
# The words that numbers can be instead.
WORDS = {"batch_size": "auto", "datamodule.batch_size": "auto"}
REMOVABLE = ("callbacks.", "logger.", "corpus.label_names.")  # whose parts may be taken away
CHOICES: dict[str, tuple[str, ...]] = {
    "batching": ("bucketed", "random"),
    "padding": ("longest", "max_length"),
    "keep_checkpoints": ("all", "best", "none"),
    "datamodule.batching": ("bucketed", "random"),
    "datamodule.padding": ("longest", "max_length"),
    "scheduler.interval": ("epoch", "step"),
    "retry": ("failed", "none"),
    "on_failure": ("continue", "stop"),
}
# Types of the keys whose shipped value is null; every other key keeps its shipped value's type.
NULL_TYPES: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "limit_rows": (int,),
    "sweep_name": (str,),
    "budget_hours": (float, int),
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
    "batch_size": (int, str),
    "datamodule.batch_size": (int, str),
    "corpus.validation": (float, str),
    "seed": (int, type(None)),
    "accelerator.precision": (str, int),
    "trainer.precision": (str, int),
    "accelerator.widths": (int, type(None)),
    "trainer.gradient_clip_val": (float, int, type(None)),
}


def nearest(word: str, words: Iterable[str]) -> str:
    """The most similar word, or an empty string."""
    spelt = {known.lower(): known for known in words}
    found = difflib.get_close_matches(word.lower(), list(spelt), 1, cutoff=0.5)
    return spelt[found[0]] if found else ""


def keys_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config, nodes included."""
    if isinstance(config, DictConfig):
        for name in config:
            key = f"{prefix}{name!s}"
            yield key
            yield from keys_of(config._get_node(name), f"{key}.")


def container(config: DictConfig) -> dict[Any, Any]:
    """The config with its interpolations resolved, as plain values.

    Raises:
        ConfigError: naming the key whose interpolation leads nowhere.
    """
    try:
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        what = str(error).split("\n")[0]
        fix = "the name of another key: ${seed}; or '\\${' for the characters themselves"
        if unset := re.search(r"Environment variable '([^']+)' not found", what):
            what, fix = f"the environment variable {unset[1]} is not set", f"export {unset[1]}=<its value>"
        elif absent := re.search(r"Interpolation key '([^']+)' not found", what):
            what = f"it takes its value from '{absent[1]}', which does not exist"
            fix = f"{absent[1]}=<value>"
        raise ConfigError(what, where=str(error.full_key or ""), fix=fix) from error
    assert isinstance(resolved, dict)
    return resolved


def check_values(config: DictConfig) -> None:
    """Refuse values that cannot work: missing, out of range, no choice, a monitor that nothing logs.

    Raises:
        ConfigError: naming the key and the fix.
    """
    container(config)
    for name in NODES:
        if not isinstance(config.get(name), DictConfig):
            raise ConfigError(f"'{name}' is a group of keys, not a value", where=name, fix=f"{name}=<option>")
    for key, value in leaves(config):
        if set(key.split(".")).intersection(FORBIDDEN_KEYS):
            raise ConfigError("this is never set by a config: it could let a checkpoint run code", where=key)
        if value == "???":
            raise ConfigError(f"'{key}' has to be set", where=key, fix=f"{key}=<value>")
        if key in CHOICES and value not in CHOICES[key]:
            raise ConfigError(
                f"{key}={value!r} is no choice", where=key, fix=f"{key}={' or '.join(CHOICES[key])}"
            )
        if key in WORDS and isinstance(value, str) and value != WORDS[key]:
            raise ConfigError(
                f"{key}={value!r} is no number", where=key, fix=f"{key}={WORDS[key]}, or a number"
            )
        low, high = RANGES.get(key, (None, None))
        if key in RANGES and isinstance(value, int | float) and not _in_range(value, low, high):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ConfigError(f"{key}={value} is out of range", where=key, fix=f"a value {bounds}")
    for key in MONITORS:
        if key == "monitor" or OmegaConf.select(config, key) is not None:
            _check_monitor(str(OmegaConf.select(config, key)), key)
    length, positions = config.get("max_seq_length"), config.model.get("positions")
    if isinstance(length, int) and isinstance(positions, int) and length > positions:
        raise ConfigError(
            f"max_seq_length={length} is beyond the model's {positions} positions",
            where="max_seq_length",
            fix=f"max_seq_length={positions} or less",
        )


def check_shape(config: DictConfig, shipped: DictConfig) -> None:
    """Refuse keys that do not exist and values of another type than the shipped ones.

    Args:
        config: the composed config.
        shipped: the same option of every group without the user's values.

    Raises:
        ConfigError: naming the key, the nearest valid key and the fix.
    """
    _check_nodes(config, shipped)
    _check_keys(config, shipped)
    for key, value in leaves(config):
        default = OmegaConf.select(shipped, key)
        if key.endswith("._partial_") and default is True and value is not True:
            raise ConfigError("bunryu adds arguments of its own here", where=key, fix=f"{key}=true")
        allowed = WIDER_TYPES.get(key) or _types_like(key, default)
        if allowed and not _fits(value, allowed):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            what = f"{key}={value!r} is {type(value).__name__}, not {names}"
            raise ConfigError(what, where=key, fix=f"{key}={default}")


def _check_nodes(config: DictConfig, shipped: DictConfig) -> None:
    """Refuse a value where keys stand in the shipped config, and shipped keys that were taken away."""
    present = set(keys_of(config))
    for key in keys_of(shipped):
        if key not in present:
            node, _, name = key.rpartition(".")
            if not key.startswith(REMOVABLE) or (name == "_target_" and node in present):
                raise ConfigError(f"'{key}' cannot be taken away", where=f"~{key}", fix=f"{key}=<value>")
            continue
        here = OmegaConf.select(config, key)
        default = OmegaConf.select(shipped, key, throw_on_missing=False)
        removed = here is None and key.startswith(REMOVABLE)
        if (
            isinstance(here, DictConfig)
            and not isinstance(default, DictConfig)
            and (default is not None or key in NULL_TYPES)
        ):
            raise ConfigError(f"'{key}' is a value, it holds no keys", where=key, fix=f"{key}={default}")
        if isinstance(default, DictConfig) and not (isinstance(here, DictConfig) or removed):
            raise ConfigError(
                f"'{key}' holds keys of its own, it cannot be a value",
                where=key,
                fix=f"{key}.<key>=<value>, or an option of its group: {key.replace('.', '/')}=<option>",
            )


def _check_keys(config: DictConfig, shipped: DictConfig) -> None:
    known = set(keys_of(shipped))
    for key in keys_of(config):
        if key not in known and not _inside_target(key, shipped) and not _inside_target(key, config):
            near = nearest(key, sorted(known))
            raise ConfigError(
                f"there is no key '{key}'", where=key, fix=f"did you mean '{near}'?" if near else ""
            )


def _inside_target(key: str, config: DictConfig) -> bool:
    """Whether the key lies in a node that is instantiated, whose signature then judges it.

    A node itself counts below the top level: a callback or logger that a user adds.
    """
    parts = key.split(".")
    nodes = [OmegaConf.select(config, ".".join(parts[:n])) for n in range(1, len(parts) + 1)]
    return any(
        isinstance(node, DictConfig) and "_target_" in node
        for depth, node in enumerate(nodes, 1)
        if depth < len(parts) or depth > 1
    )


def leaves(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that holds a value, with the value; ``???`` where it is missing."""
    for name in config:
        key, node = f"{prefix}{name!s}", config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from leaves(node, f"{key}.")
        elif OmegaConf.is_missing(config, name):
            yield key, "???"
        else:
            value = config[name]
            yield key, OmegaConf.to_container(value) if isinstance(value, ListConfig) else value


def _types_like(key: str, default: Any) -> tuple[type, ...]:
    if default is None or default == "???":
        return (*NULL_TYPES[key], type(None)) if key in NULL_TYPES else ()
    if isinstance(default, bool | str):
        return (type(default),)
    if isinstance(default, float):
        return (float, int)
    return (int,) if isinstance(default, int) else ()


def _fits(value: Any, allowed: tuple[type, ...]) -> bool:
    return isinstance(value, allowed) and not (isinstance(value, bool) and bool not in allowed)


def _in_range(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high) and abs(value) < math.inf


def _check_monitor(monitor: str, key: str) -> None:
    words = monitor.split()
    if len(words) == 2 and MONITORED.get(words[1]) == words[0]:
        return
    near = nearest(words[-1] if words else "", MONITORED) or "val/loss"
    known = ", ".join(f"'{mode} {metric}'" for metric, mode in MONITORED.items())
    what = (
        f"{key}='{monitor}' would keep the worst"
        if words[1:] == [near]
        else f"nothing logs {key}='{monitor}'"
    )
    raise ConfigError(what, where=key, fix=f"{key}='{MONITORED[near]} {near}'; one of {known}")
