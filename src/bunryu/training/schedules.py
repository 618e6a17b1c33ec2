"""Learning-rate schedules that torch lacks, and how often a schedule moves."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from bunryu.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule and how often it moves."""

    interval: str  # epoch or step
    factory: Callable[..., LRScheduler]  # from an optimizer (and total_steps, if it takes that)
    monitor: str | None = None  # of ReduceLROnPlateau, such as ``min val/loss``

    def of(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """The schedule of an optimizer; ConfigError if it has a monitor and needs none, or the reverse."""
        made = getattr(self.factory, "func", self.factory)
        waits = isinstance(made, type) and issubclass(made, ReduceLROnPlateau)
        if waits != bool(self.monitor) or (waits and self.interval != "epoch"):
            what = "ReduceLROnPlateau alone has a monitor, and moves once an epoch"
            raise ConfigError(what, where="scheduler", fix="scheduler=plateau")
        if self.monitor:
            return self.factory(optimizer, mode=self.monitor.split()[0])
        takes_total = "total_steps" in inspect.signature(self.factory).parameters
        return self.factory(optimizer, **({"total_steps": total_steps} if takes_total else {}))


def linear_warmup(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Rise to the full rate over the first share ``warmup`` of the steps, then fall linearly to 0."""
    return _warmed_up(optimizer, total_steps, warmup, lambda done, left: max(0.0, left / max(1, done + left)))


def cosine_warmup(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Rise to the full rate over the first share ``warmup`` of the steps, then fall to 0 along a cosine.

    The cosine is Loshchilov and Hutter's (SGDR, 2017) without restarts.
    """

    def factor(done: int, left: int) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done / max(1, done + left))))

    return _warmed_up(optimizer, total_steps, warmup, factor)


def _warmed_up(
    optimizer: Optimizer, total_steps: int, warmup: float, factor: Callable[[int, int], float]
) -> LambdaLR:
    """``factor`` is the rate's, of the steps taken since the warm-up and those left."""
    first = math.ceil(total_steps * warmup)
    return LambdaLR(
        optimizer,
        lambda step: (step + 1) / first if step < first else factor(step - first, total_steps - step),
    )
