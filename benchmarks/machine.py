"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import time

from bunryu.system.machine import processor

SIDES = (1024, 1536, 2048)  # of the squares whose product is timed
REPEATS = 5


def describe() -> str:
    """Processor, cores, torch's threads and version, and the fp32 matrix product's peak, in one line."""
    import torch

    return (
        f"{processor()}, {_cores()} cores, {torch.get_num_threads()} torch threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"fp32 matmul {matmul_gflops():.0f} GFLOP/s"
    )


def matmul_gflops() -> float:
    """The best rate of a square fp32 matrix product, in GFLOP/s."""
    import torch

    best = 0.0
    for side in SIDES:
        left, right = torch.rand(side, side), torch.rand(side, side)
        torch.mm(left, right)
        for _ in range(REPEATS):
            start = time.perf_counter()
            torch.mm(left, right)
            best = max(best, 2 * side**3 / (time.perf_counter() - start) / 1e9)
    return best


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    print(describe())
