"""From config nodes to objects: what may be named in a config, and the one ``instantiate``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from bunryu.checks import leaves, nearest
from bunryu.errors import ConfigError
from bunryu.runs import Run

# Packages a _target_ may start from; what it resolves to is judged as well.
PACKAGES = ("bunryu", "torch", "transformers", "pytorch_lightning")
# transformers' own arguments beside those of the architecture; the rest of them is not for a config file.
LOADING = {"attn_implementation", "dtype", "force_download", "local_files_only", "revision"}
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
INSTANTIATE_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")


def plain(config: DictConfig) -> dict[str, Any]:
    """The config resolved to plain values, except that secrets stay as ``${oc.env:NAME}``."""

    def keep(*parts: Any) -> str:
        return "${oc.env:" + ",".join(str(part) for part in parts) + "}"

    OmegaConf.register_new_resolver("oc.env", keep, replace=True)
    try:
        container = OmegaConf.to_container(config.copy(), resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, use_cache=False, replace=True)
    assert isinstance(container, dict)
    recorded = OmegaConf.create(container)
    for key, value in leaves(config):
        if isinstance(value, int | float) and isinstance(OmegaConf.select(recorded, key), str):
            raise ConfigError(
                "a number from the environment cannot be recorded without its value",
                where=key,
                fix=f"{key}={value}, or let the shell fill it in",
            )
    return {str(key): value for key, value in container.items()}


def resolved(run: Run) -> dict[str, Any]:
    """The run's config with secrets filled in from the environment; never written anywhere."""
    container = OmegaConf.to_container(OmegaConf.create(run.config), resolve=True)
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


def instantiate(node: Mapping[str, Any], where: str = "") -> Any:
    """Make what a config node describes; the only way from a config to an object.

    Args:
        node: plain values with a ``_target_``.
        where: the node's key, for errors.

    Raises:
        ConfigError: if a target is not allowed or refuses its arguments.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    check_targets(node, where)
    try:
        return hydra_instantiate(OmegaConf.create(dict(node)), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"{type(cause).__name__}: {cause}", where=str(node.get("_target_"))) from error


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


def _check_call(node: Mapping[str, Any], where: str) -> None:
    target = resolve(str(node["_target_"]), f"{where}._target_" if where else "_target_")
    names = _parameters(target)
    for key in node:
        if key in FILLED_IN.get(where, ()):
            raise ConfigError(
                f"'{key}' is filled in by bunryu", where=f"{where}.{key}", fix=FILLED_IN[where][key]
            )
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
    if any(part.startswith("_") for part in parts):
        raise _refused(path, where)
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
        except (Exception, SystemExit) as error:  # whatever a module does when it is imported
            near = nearest(part, dir(found))
            raise ConfigError(
                f"'{path}' cannot be imported: {error}",
                where=where,
                fix=f"did you mean '{near}'?" if near else "",
            ) from error
    return found


def _allowed(found: Any) -> bool:
    if inspect.isclass(found) and found.__module__.startswith("bunryu."):
        return True  # decided before anything heavy is imported
    import pytorch_lightning as pl
    import torch
    import transformers

    from bunryu import schedules

    if inspect.ismethod(found):  # a model class's or AutoTokenizer's from_pretrained
        owner = found.__self__
        loaders = (transformers.AutoTokenizer, transformers.AutoModelForSequenceClassification)
        is_model = inspect.isclass(owner) and issubclass(owner, transformers.PreTrainedModel)
        return found.__name__ == "from_pretrained" and (owner in loaders or is_model)
    if not inspect.isclass(found):
        return found in (schedules.linear_warmup, schedules.cosine_warmup)
    families = (
        torch.optim.Optimizer,
        torch.optim.lr_scheduler.LRScheduler,
        transformers.PreTrainedModel,
        transformers.PreTrainedConfig,
        pl.Trainer,
        pl.Callback,
        pl.loggers.Logger,
        pl.profilers.Profiler,
    )
    return issubclass(found, families)


def _parameters(target: Callable[..., Any]) -> set[str]:
    """The keys a target's signature takes; for transformers' open-ended ones, an architecture's keys."""
    parameters = inspect.signature(target).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if inspect.ismethod(target):
        from transformers import BertConfig

        owner: type = target.__self__  # type: ignore[assignment]
        if owner.__name__ == "AutoTokenizer":
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
