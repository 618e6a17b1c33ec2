"""A run or a sweep that is looked at and not trained: its corpus, its lengths, its cost, its problems."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunryu import preflight, ranks
from bunryu.composition import Plan
from bunryu.errors import BunryuError, ConfigError
from bunryu.masking import mask

if TYPE_CHECKING:
    from bunryu.estimate import Estimate, Measured

MIB = 1 << 20
JOBS_SHOWN = 200
EVERY = -1  # in place of a job's number


@dataclass
class Job:
    """One job: what is its own, and its config as it would be recorded and with its references filled in."""

    number: int
    overrides: list[str]
    recorded: dict[str, Any]
    filled: dict[str, Any]

    def settle(self) -> None:
        """Take the accelerator and precision that this machine has, as ``bunryu train`` does.

        Raises:
            ConfigError: if there is none such.
        """
        from bunryu import accelerators, batch_size

        def settled(config: dict[str, Any]) -> dict[str, Any]:
            # of batch_size=auto the most: trying what fits could fetch a model
            return batch_size.settle_batch(accelerators.settle(config), lambda rows: True)

        self.recorded, self.filled = settled(self.recorded), settled(self.filled)

    def length(self) -> int:
        """Tokens a row may have."""
        return int(self.filled["max_seq_length"])

    def processes(self) -> int:
        """How many processes train it on this machine."""
        return ranks.wanted(self.filled["accelerator"])


@dataclass(frozen=True)
class Settings:
    """What concerns the whole: jobs at a time, and hours that may be spent."""

    n_jobs: int
    budget_hours: float | None


@dataclass
class Report:
    """What was found, printed as it comes; problems are kept for the end."""

    secrets: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[int]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def add(self, job: int, problem: BunryuError | None) -> None:
        """Keep a problem of a job; the same one of several jobs is told once."""
        if problem is not None:
            self.problems.setdefault(str(problem), []).append(job)

    def say(self, *lines: str) -> None:
        """Print, without secrets."""
        self.said.update(lines)
        for line in lines:
            print(mask(line, self.secrets), flush=True)

    def code(self, jobs: int) -> int:
        """Print the problems; the exit code."""
        for text, numbers in self.problems.items():
            which = sorted(set(numbers))
            shown = ", ".join(map(str, which[:10])) + (" …" if len(which) > 10 else "")
            of = f"\n  jobs:  {shown} of {jobs}" if EVERY not in which and len(which) < jobs else ""
            print(f"bunryu check: {mask(text, self.secrets)}{of}", file=sys.stderr, flush=True)
        return 2 if self.problems else 0


def _key(facts: Any) -> str:
    return json.dumps(facts, default=str)


def survey(jobs: list[Job], report: Report, scratch: Path) -> dict[str, dict[str, Any]]:
    """Print each corpus and its lengths; returns stand-ins for models whose weights are not here."""
    from bunryu.corpus_survey import aligned, rows_and_labels, token_lengths

    corpora: dict[str, Any] = {}
    told: set[tuple[str, str]] = set()
    stand_ins: dict[str, dict[str, Any]] = {}
    for job in jobs:
        config = job.filled
        name = _key((config["corpus"], config["limit_rows"]))
        model = _key({key: value for key, value in config["model"].items() if key != "lr"})
        if (name, model) in told:
            continue
        told.add((name, model))
        try:
            if name not in corpora:
                corpora[name] = preflight.read_corpus(config)
                report.say("", f"corpus {config['corpus']['name']}")
                report.say(*(f"  {line}" for line in aligned(rows_and_labels(corpora[name]))))
                report.say(*(f"  - {flaw}" for flaw in corpora[name].warnings))
            if missing := preflight.weights_problem(config["model"]):
                report.add(job.number, missing)
                continue
            tokenizer, splits = preflight.encode(config, corpora[name])
            if not preflight.is_here(config["model"]):
                stand_ins[model] = preflight.stand_in(
                    config["model"], tokenizer, scratch / f"model-{len(told)}"
                )
        except BunryuError as error:
            report.add(job.number, error)
            continue
        lengths = sorted({other.length() for other in jobs})
        report.say("", f"tokens of {config['model']['name']} ({len(tokenizer):,} in its vocabulary)")
        table = token_lengths(splits, tokenizer.unk_token_id, lengths)
        report.say(*(f"  {line}" for line in aligned(table)))
    return stand_ins


def measured_kinds(
    jobs: list[Job], report: Report, scratch: Path, stand_ins: Mapping[str, dict[str, Any]]
) -> dict[str, Measured]:
    """What the jobs have in common, each kind timed once: the smallest first, for the sake of peaks."""
    from bunryu import estimate, timing

    measured: dict[str, Measured] = {}
    for job in sorted(jobs, key=lambda job: job.length() * int(job.filled["batch_size"])):
        key = _key(estimate.shared_by(job.filled))
        if key in measured:
            continue
        model = _key({name: value for name, value in job.filled["model"].items() if name != "lr"})
        config = {**job.recorded, "model": stand_ins.get(model, job.recorded["model"])}
        folder = scratch / f"kind-{len(measured)}"
        try:
            measured[key] = timing.measure(config, folder)
        except BunryuError as error:
            report.add(job.number, error)
    return measured


def estimated(jobs: Sequence[Job], measured: Mapping[str, Measured]) -> list[Estimate]:
    """What each job takes, from what was measured of its kind."""
    from bunryu.estimate import estimate, shared_by

    return [estimate(job.filled, measured[_key(shared_by(job.filled))]) for job in jobs]


def tell(
    planned: Plan,
    jobs: list[Job],
    settings: Settings,
    report: Report,
    startup: float,
    measured: Sequence[Measured],
    estimates: Sequence[Estimate],
) -> None:
    """Print every job and the whole, and judge the whole by disk, memory and budget."""
    from bunryu.corpus_survey import aligned
    from bunryu.estimate import together

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
