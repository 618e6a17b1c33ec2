"""Learning-rate schedules that torch lacks, and how often a schedule moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule and how often it moves.

    Args:
        interval: ``epoch`` or ``step``.
        factory: from an optimizer (and ``total_steps`` if it takes that) to a torch scheduler.
    """

    interval: str
    factory: Callable[..., LRScheduler]


def linear_warmup(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Rise to the full rate over the first share ``warmup`` of the steps, then fall linearly to 0."""
    first = math.ceil(total_steps * warmup)

    def factor(step: int) -> float:
        if step < first:
            return (step + 1) / first
        return max(0.0, (total_steps - step) / max(1, total_steps - first))

    return LambdaLR(optimizer, factor)


def cosine_warmup(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Rise to the full rate over the first share ``warmup`` of the steps, then fall to 0 along a cosine.

    The cosine is Loshchilov and Hutter's (SGDR, 2017) without restarts.
    """
    first = math.ceil(total_steps * warmup)

    def factor(step: int) -> float:
        if step < first:
            return (step + 1) / first
        done = (step - first) / max(1, total_steps - first)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)
