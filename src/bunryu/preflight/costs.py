"""Time, memory and disk of checked jobs: printed, and compared with what there is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bunryu.errors import ConfigError
from bunryu.preflight.estimate import Estimate, Measured, estimate, shared_by
from bunryu.preflight.jobs import Job
from bunryu.preflight.problems import room_problems
from bunryu.preflight.report import EVERY, Report
from bunryu.preflight.survey import aligned
from bunryu.sweeps.plan import Plan

MIB = 1 << 20
JOBS_SHOWN = 200


def report_costs(
    plan: Plan, jobs: Sequence[Job], report: Report, startup: float, measured: Mapping[str, Measured]
) -> None:
    """Print what every job and the whole take, and report what is more than there is.

    Of a search its trials are taken to be as its one job here. ``startup`` is the seconds that a process
    takes before it has a job.
    """
    estimates = [  # a run of several processes starts them once it has been checked
        estimate(job.filled, measured[shared_by(job.filled)], startup * (job.processes() > 1)) for job in jobs
    ]
    repeats = plan.trials or 1
    at_once = min(plan.master.n_jobs, len(estimates) * repeats)
    seconds = startup + duration_of([one.seconds for one in estimates] * repeats, at_once)
    memory = at_once * max(one.memory for one in estimates)
    device_memory = max(kind.device_memory for kind in measured.values())
    kept = repeats * sum(one.kept for one in estimates)
    disk = kept + at_once * max(one.disk - one.kept for one in estimates)
    notes = f", {at_once} jobs at a time" * (at_once > 1)
    if any(job.processes() > 1 for job in jobs):
        notes += ", and what a run's processes tell each other"  # one was timed alone
    report.say(
        *_model_lines(measured.values()),
        *_job_lines(plan, jobs, startup, estimates),
        "",
        f"estimated time    {duration(seconds)}{notes}",
        f"memory at most    {_bytes(memory)}",
        *([f"of the device     {_bytes(device_memory)}"] if device_memory else []),
        f"disk in the end   {_bytes(kept)}, at most {_bytes(disk)}",
    )
    root = Path(jobs[0].filled["output_root"]).expanduser()
    for problem in room_problems(root, disk, 0 if device_memory else memory, at_once):
        report.add(EVERY, problem)
    report.add(EVERY, over_budget(seconds, plan.master.budget_hours))


def duration_of(seconds: Sequence[float], at_once: int) -> float:
    """How long jobs take of which so many run at a time: rounds of average jobs, or the longest one."""
    return max(math.ceil(len(seconds) / at_once) * statistics.fmean(seconds), *seconds)


def _model_lines(measured: Iterable[Measured]) -> Iterator[str]:
    """A line for each size of model."""
    for kind in {one.parameters: one for one in measured}.values():
        sizes = f"{_bytes(kind.folder)} as model/, {_bytes(kind.checkpoint)} a checkpoint"
        yield from ("", f"model: {kind.parameters:,} parameters, {sizes}")


def _job_lines(plan: Plan, jobs: Sequence[Job], startup: float, estimates: Sequence[Estimate]) -> list[str]:
    """Of a sweep a line for each job; of one run a line for each part of its time."""
    if not plan.grid.swept:
        (one,) = estimates
        seconds = {**one.parts, "start-up": startup + one.parts["start-up"]}
        parts = aligned([[part, f"{value:,.1f} s", ""] for part, value in seconds.items()])
        return ["", f"{one.steps:,} steps", *(f"  {line}" for line in parts)]
    table = [["job", "steps", "time", "memory", "disk", "overrides"]]
    for job, one in list(zip(jobs, estimates, strict=True))[:JOBS_SHOWN]:
        figures = [f"{one.steps:,}", duration(one.seconds), _bytes(one.memory), _bytes(one.kept)]
        table.append([str(job.number), *figures, " ".join(job.overrides)])
    return ["", *aligned(table)]


def over_budget(seconds: float, hours: float | None) -> ConfigError | None:
    """A refusal with both figures, if there is a budget and it is too small."""
    if hours is None or seconds <= 3600 * hours:
        return None
    what = f"the estimate is {seconds / 3600:.4g} hours, the budget {hours:.4g}"
    fix = "a larger budget; or fewer epochs or values, a smaller model, max_seq_length or limit_rows"
    return ConfigError(what, where=f"budget_hours={hours:g}", fix=fix)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, whole ones from a minute on."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def _bytes(count: float) -> str:
    return f"{count / MIB:,.1f} MiB" if count < 1024 * MIB else f"{count / (1024 * MIB):,.2f} GiB"
