"""What is refused before there is a run directory, beyond keys and types."""

from __future__ import annotations

import logging.config
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bunryu.config.instantiate import call, instantiate
from bunryu.config.record import fill_environment
from bunryu.errors import BunryuError, ConfigError


@contextmanager
def quiet() -> Iterator[None]:
    """Hide advice of Lightning's that does not fit here, and its chatter below warnings."""
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


def machine_problems(config: Mapping[str, Any]) -> list[BunryuError]:
    """An accelerator that is not there, and arguments that Lightning or torch refuses.

    Args:
        config: plain values, its targets checked.
    """
    import torch

    parameters = [torch.nn.Parameter(torch.zeros(1))]
    fix = "accelerator=auto, which takes what this machine has; or another value of the argument it names"
    tries: list[tuple[Callable[[], Any], str]] = [
        (lambda: call(instantiate(config["optimizer"]), "optimizer", parameters), "another value"),
    ]
    if config["accelerator"]["name"] != "tpu":  # whose trainer would take the chips
        tries.append((lambda: trainer_of(config), fix))
    return [
        problem if problem.fix else ConfigError(problem.what, where=problem.where, fix=fix)
        for attempt, fix in tries
        if (problem := refused(attempt))
    ]


def refuse_machine_problems(config: Mapping[str, Any]) -> None:
    """Refuse what ``machine_problems`` finds, before there is a run directory.

    Args:
        config: settled, its targets checked.

    Raises:
        BunryuError: the first of them.
    """
    names = ("accelerator", "optimizer", "trainer")
    with quiet():
        problems = machine_problems({name: fill_environment(config[name], name) for name in names})
    if problems:
        raise problems[0]


def trainer_of(config: Mapping[str, Any]) -> Any:
    """Lightning's trainer with the run's own arguments, without callbacks and loggers.

    Raises:
        ConfigError: for arguments it refuses, an accelerator among them that is not there.
    """
    return call(instantiate(config["trainer"]), "trainer or accelerator", logger=False)


def refused(attempt: Callable[[], Any]) -> BunryuError | None:
    """What is refused, if anything."""
    try:
        attempt()
    except BunryuError as error:
        return error
    return None
