"""Time, memory and disk of checked jobs, and the lines that show them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bunryu.errors import ConfigError
from bunryu.preflight.estimate import Estimate, Measured, together
from bunryu.preflight.jobs import Job
from bunryu.preflight.survey import aligned
from bunryu.sweeps.plan import Plan

MIB = 1 << 20
JOBS_SHOWN = 200


@dataclass(frozen=True)
class Costs:
    """What all jobs of a plan take together."""

    seconds: float  # from the command to its end
    at_once: int  # jobs that run at a time
    memory: int  # bytes that the largest job has resident
    kept: int  # bytes on the disk in the end
    disk: int  # bytes on the disk at the most


def costs_of(plan: Plan, jobs: Sequence[Job], startup: float, estimates: Sequence[Estimate]) -> Costs:
    """The costs of all jobs; of a search its trials are taken to be as its one job here.

    Args:
        plan: of the jobs.
        jobs: in the order of the estimates.
        startup: seconds that a process takes before it has a job.
        estimates: one a job.
    """
    repeats = plan.trials or 1
    times = [_restart(job, startup) + one.seconds for job, one in zip(jobs, estimates, strict=True)] * repeats
    at_once = min(plan.master.n_jobs, len(times))
    kept = sum(one.kept for one in estimates) * repeats
    return Costs(
        seconds=startup + together(times, at_once),
        at_once=at_once,
        memory=max(one.memory for one in estimates),
        kept=kept,
        disk=kept + at_once * max(one.disk - one.kept for one in estimates),
    )


def _restart(job: Job, startup: float) -> float:
    """A run of several processes starts them once it has been checked, and pays for their start again."""
    return startup * (job.processes() > 1)


def model_lines(measured: Sequence[Measured]) -> Iterator[str]:
    """A line for each size of model."""
    for kind in {one.parameters: one for one in measured}.values():
        yield ""
        yield (
            f"model: {kind.parameters:,} parameters, {_bytes(kind.folder)} as model/, "
            f"{_bytes(kind.checkpoint)} a checkpoint"
        )


def job_lines(plan: Plan, jobs: Sequence[Job], startup: float, estimates: Sequence[Estimate]) -> list[str]:
    """Of a sweep a line for each job; of one run a line for each part of its time."""
    if not plan.grid.swept:
        seconds = {"start-up": startup + _restart(jobs[0], startup), **estimates[0].parts}
        parts = aligned([[part, f"{value:,.1f} s", ""] for part, value in seconds.items()])
        return ["", f"{estimates[0].steps:,} steps", *(f"  {line}" for line in parts)]
    table = [["job", "steps", "time", "memory", "disk", "overrides"]]
    for job, one in list(zip(jobs, estimates, strict=True))[:JOBS_SHOWN]:
        figures = [f"{one.steps:,}", duration(one.seconds), _bytes(one.memory), _bytes(one.kept)]
        table.append([str(job.number), *figures, " ".join(job.overrides)])
    return ["", *aligned(table)]


def total_lines(costs: Costs, jobs: Sequence[Job], device_memory: int) -> list[str]:
    """Time, memory and disk of the whole."""
    notes = f", {costs.at_once} jobs at a time" * (costs.at_once > 1)
    if any(job.processes() > 1 for job in jobs):
        notes += ", and what a run's processes tell each other"  # one was timed alone
    return [
        "",
        f"estimated time    {duration(costs.seconds)}{notes}",
        f"memory at most    {_bytes(costs.memory * costs.at_once)}",
        *([f"of the device     {_bytes(device_memory)}"] if device_memory else []),
        f"disk in the end   {_bytes(costs.kept)}, at most {_bytes(costs.disk)}",
    ]


def over_budget(seconds: float, hours: float | None) -> ConfigError | None:
    """A refusal with both figures, if there is a budget and it is too small."""
    if hours is None or seconds <= 3600 * hours:
        return None
    return ConfigError(
        f"the estimate is {seconds / 3600:.4g} hours, the budget {hours:.4g}",
        where=f"budget_hours={hours:g}",
        fix="a larger budget; or fewer epochs or values, a smaller model, max_seq_length or limit_rows",
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, whole ones from a minute on."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def _bytes(count: float) -> str:
    return f"{count / MIB:,.1f} MiB" if count < 1024 * MIB else f"{count / (1024 * MIB):,.2f} GiB"
