"""What is refused before there is a run directory, beyond keys and types."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from bunryu.config.instantiate import call, check_targets, instantiate
from bunryu.config.record import fill_environment, located
from bunryu.errors import BunryuError, ConfigError
from bunryu.system import ranks


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what Lightning logs below warnings, and its warnings that do not apply here."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            r".*does not have many workers.*",
            r".*LeafSpec.*",
            r".*The number of training batches .* is smaller than the logging interval.*",
            r".*exists and is not empty.*",
            r".*dataloader is not resumable.*",  # ours starts where the trainer stands
            r".*sync_dist=True.*",  # every process has the metrics of all rows already
            r".*resuming from a checkpoint that ended before the epoch.*",
        ):
            warnings.filterwarnings("ignore", message)
        yield


def settle_and_check(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with absolute paths and no ``auto`` but ``batch_size``'s; raises what would fail here."""
    from bunryu.training import accelerators

    settled = located(accelerators.resolve_auto(config))
    for problem in problems_here(settled):
        raise problem
    return settled


def problems_here(config: Mapping[str, Any]) -> Iterator[BunryuError]:
    """What a config without ``auto`` would fail at: targets, processes, arguments of Lightning or torch."""
    if problem := refused(lambda: check_targets(config)):
        yield problem
        return  # nothing of it may be made
    devices, nodes = config["accelerator"]["devices"], config["trainer"].get("num_nodes", 1)
    other = "accelerator=auto, which takes what this machine has; or another value of the argument it names"
    attempts: list[Callable[[], Any]] = [lambda: ranks.check(devices, nodes)]
    attempts.append(lambda: optimizer_and_schedule(config))
    if config["accelerator"]["name"] != "tpu":  # whose trainer would take the chips
        attempts.append(lambda: trainer_of(config))
    for attempt, fix in zip(attempts, ("", "another value", other), strict=False):
        with quiet():
            problem = refused(attempt)
        if problem is not None:
            yield problem if problem.fix else ConfigError(problem.what, where=problem.where, fix=fix)


def optimizer_and_schedule(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The optimizer's factory and the schedule, tried for one step; ConfigError for what they refuse."""
    import torch

    nodes = {name: fill_environment(config[name], name) for name in ("optimizer", "scheduler")}
    factory, schedule = (instantiate(node, name) for name, node in nodes.items())
    matrix, vector = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((1, 1), (1,)))
    groups = [{"params": [matrix]}, {"params": [vector], "weight_decay": 0.0}]
    optimizer = call(factory, "optimizer", groups)
    call(schedule.of, "scheduler", optimizer, 100)
    matrix.grad, vector.grad = torch.zeros(1, 1), torch.zeros(1)
    try:
        with suppress(AssertionError):  # torch's words for another device than this one
            optimizer.step(lambda: torch.zeros(()))
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{type(error).__name__}: {error}", where="optimizer") from error
    return factory, schedule


def callbacks_of(config: Mapping[str, Any]) -> list[Any]:
    """The callbacks of a config; no progress bar where ``trainer.enable_progress_bar`` is false."""
    from pytorch_lightning.callbacks import ProgressBar

    nodes = fill_environment(config["callbacks"], "callbacks")
    made = [instantiate(node, f"callbacks.{name}") for name, node in nodes.items() if node]
    shown = config["trainer"].get("enable_progress_bar", True)
    return [callback for callback in made if shown or not isinstance(callback, ProgressBar)]


def trainer_of(config: Mapping[str, Any]) -> Any:
    """Lightning's trainer without loggers; ConfigError for what it refuses, and if it would score nothing."""
    factory = instantiate(fill_environment(config["trainer"], "trainer"), "trainer")
    trainer = call(factory, "trainer or accelerator", logger=False, callbacks=callbacks_of(config))
    for split in ("train", "val", "test"):
        if not getattr(trainer, key := f"limit_{split}_batches"):
            what = "a run trains, chooses its best checkpoint on validation and scores test"
            raise ConfigError(what, where=f"trainer.{key}=0", fix=f"~trainer.{key}; limit_rows=… for less")
    if (trainer.check_val_every_n_epoch or 1) > trainer.max_epochs:
        where = "trainer.check_val_every_n_epoch"
        raise ConfigError("no epoch would be validated", where=where, fix=f"++{where}={trainer.max_epochs}")
    return trainer


def refused(attempt: Callable[[], Any]) -> BunryuError | None:
    """The error that an attempt raises; None if it succeeds."""
    try:
        attempt()
    except BunryuError as error:
        return error
    return None
