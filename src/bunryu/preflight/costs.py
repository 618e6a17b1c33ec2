"""Time, memory and disk of checked jobs, as lines to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bunryu.errors import ConfigError
from bunryu.preflight import problems as preflight
from bunryu.preflight.jobs import Job, Settings
from bunryu.preflight.report import EVERY, Report
from bunryu.sweeps.plan import CommandLine

if TYPE_CHECKING:
    from bunryu.preflight.estimate import Estimate, Measured


MIB = 1 << 20
JOBS_SHOWN = 200


def tell(
    planned: CommandLine,
    jobs: list[Job],
    settings: Settings,
    report: Report,
    startup: float,
    measured: Sequence[Measured],
    estimates: Sequence[Estimate],
) -> None:
    """Print every job and the whole, and judge the whole by disk, memory and budget."""
    from bunryu.preflight.estimate import together
    from bunryu.preflight.survey import aligned

    for kind in {m.parameters: m for m in measured}.values():
        report.say(
            "",
            f"model: {kind.parameters:,} parameters, {_bytes(kind.folder)} as model/, "
            f"{_bytes(kind.checkpoint)} a checkpoint",
        )
    starts = [startup * (job.processes() > 1) for job in jobs]  # once more, for those a run starts
    if planned.swept:
        table = [["job", "steps", "time", "memory", "disk", "overrides"]]
        for job, one in list(zip(jobs, estimates, strict=True))[:JOBS_SHOWN]:
            figures = [f"{one.steps:,}", duration(one.seconds), _bytes(one.memory), _bytes(one.kept)]
            table.append([str(job.number), *figures, " ".join(job.overrides)])
        report.say("", *aligned(table))
    else:
        seconds = {"start-up": startup + starts[0], **estimates[0].parts}
        table = [[part, f"{value:,.1f} s", ""] for part, value in seconds.items()]
        report.say("", f"{estimates[0].steps:,} steps", *(f"  {line}" for line in aligned(table)))
    repeats = planned.trials or 1
    times = [again + one.seconds for again, one in zip(starts, estimates, strict=True)] * repeats
    whole = startup + together(times, settings.n_jobs)
    at_once = min(settings.n_jobs, len(times))
    kept = sum(one.kept for one in estimates) * repeats
    disk = kept + at_once * max(one.disk - one.kept for one in estimates)
    memory = max(one.memory for one in estimates)
    notes = f", {at_once} jobs at a time" * (at_once > 1)
    if any(job.processes() > 1 for job in jobs):
        notes += ", and what a run's processes tell each other"  # one was timed alone
    report.say(
        "",
        f"estimated time    {duration(whole)}{notes}",
        f"memory at most    {_bytes(memory * at_once)}",
        *[f"of the device     {_bytes(m)}" for m in [max(m.device_memory for m in measured)] if m],
        f"disk in the end   {_bytes(kept)}, at most {_bytes(disk)}",
    )
    root = Path(jobs[0].filled["output_root"]).expanduser()
    on_cpu = all(m.on_cpu for m in measured)
    for problem in preflight.room_problems(root, disk, memory, at_once=at_once, on_cpu=on_cpu):
        report.add(EVERY, problem)
    report.add(EVERY, over_budget(whole, settings.budget_hours))


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
