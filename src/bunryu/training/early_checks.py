"""What is refused before there is a run directory, beyond keys and types."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    attempts: list[Callable[[], Any]] = [lambda: ranks.check(devices, nodes), lambda: _optimizer_of(config)]
    if config["accelerator"]["name"] != "tpu":  # whose trainer would take the chips
        attempts.append(lambda: trainer_of(config))
    for attempt, fix in zip(attempts, ("", "another value", other), strict=False):
        with quiet():
            problem = refused(attempt)
        if problem is not None:
            yield problem if problem.fix else ConfigError(problem.what, where=problem.where, fix=fix)


def _optimizer_of(config: Mapping[str, Any]) -> Any:
    """The optimizer of a single parameter, to see whether it takes its arguments."""
    import torch

    factory = instantiate(fill_environment(config["optimizer"], "optimizer"), "optimizer")
    return call(factory, "optimizer", [torch.nn.Parameter(torch.zeros(1))])


def trainer_of(config: Mapping[str, Any]) -> Any:
    """Lightning's trainer without callbacks and loggers; ConfigError for arguments it refuses."""
    factory = instantiate(fill_environment(config["trainer"], "trainer"), "trainer")
    return call(factory, "trainer or accelerator", logger=False)


def refused(attempt: Callable[[], Any]) -> BunryuError | None:
    """The error that an attempt raises; None if it succeeds."""
    try:
        attempt()
    except BunryuError as error:
        return error
    return None
