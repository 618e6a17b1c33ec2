"""Which metric counts, which keys were swept, and which runs differ in nothing but their seed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from bunryu.errors import ConfigError
from bunryu.keys import leaves, value_at
from bunryu.reports.entries import RunSummary
from bunryu.sweeps.ledger import IRRELEVANT

DRAWN = {"limit_rows", "corpus.validation", "corpus.split_seed"}  # decide which of the files' rows a run has


@dataclass(frozen=True)
class Metric:
    """What runs are compared by: a name such as ``val/loss`` and a mode, ``min`` or ``max``."""

    name: str
    mode: str

    def __str__(self) -> str:
        return f"{self.mode} {self.name}"

    @property
    def lower_is_better(self) -> bool:
        return self.mode == "min"

    def goodness(self, value: float) -> float:
        """The value with a sign that makes larger better."""
        return -value if self.lower_is_better else value


@dataclass(frozen=True)
class Group:
    """Finished runs that differ in nothing but the seed."""

    values: dict[str, Any]  # what its swept keys are set to
    runs: dict[Any, RunSummary]  # seed -> the newest finished run of it, the best first

    def scores(self, metric: Metric) -> dict[Any, float]:
        return {seed: run.metrics[metric.name] for seed, run in self.runs.items()}

    @property
    def label(self) -> str:
        """Its swept keys as they would be typed."""
        return " ".join(f"{key}={shown(value)}" for key, value in self.values.items()) or "this configuration"


@dataclass(frozen=True)
class Comparison:
    """Runs in order of a metric."""

    metric: Metric
    keys: list[str]  # the swept ones, but for the seed
    groups: list[Group]  # the best first, by their means
    ranked: list[RunSummary]  # finished runs that have the metric, the best first
    unranked: list[tuple[RunSummary, str]]  # the other runs, each with the reason
    entries: list[RunSummary]  # all runs
    notes: list[str]  # what a reader should know, sentences

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Swept key -> its value in each ranked run."""
        values = {id(run): group.values for group in self.groups for run in group.runs.values()}
        return {key: [values[id(run)][key] for run in self.ranked] for key in self.keys}

    @property
    def scores(self) -> list[float]:
        return [run.metrics[self.metric.name] for run in self.ranked]


def compare(entries: Sequence[RunSummary], requested: str | None = None) -> Comparison:
    """Rank what finished, in groups that are equal up to the seed.

    Requested is such as ``val/accuracy`` or ``max val/accuracy``, None what the runs themselves watched.
    Raises ConfigError if they watched different metrics, or if none has the requested one.
    """
    metric = _metric(entries, requested)
    newest: dict[tuple[str, Any], RunSummary] = {}
    reasons = [(entry, _why_unranked(entry, metric)) for entry in entries]
    finished = [entry for entry, why in reasons if not why]
    for entry in finished:
        place = _without_seed(entry), entry.seed
        if place not in newest or entry.name > newest[place].name:
            newest[place] = entry
    ranked = sorted(newest.values(), key=lambda run: metric.goodness(run.metrics[metric.name]), reverse=True)
    members: dict[str, dict[Any, RunSummary]] = {}
    for run in ranked:
        members.setdefault(_without_seed(run), {})[run.seed] = run
    columns = _swept([next(iter(runs.values())) for runs in members.values()])
    rows = ({key: column[at] for key, column in columns.items()} for at in range(len(members)))
    groups = list(map(Group, rows, members.values()))
    groups.sort(key=lambda group: metric.goodness(fmean(group.scores(metric).values())), reverse=True)
    unranked = [(entry, why) for entry, why in reasons if why]
    notes = _notes(ranked, len(finished) - len(ranked), columns)
    return Comparison(metric, list(columns), groups, ranked, unranked, list(entries), notes)


def _swept(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Keys that tell configurations apart -> each one's value.

    First those of the command lines, then as many others as are needed to tell the rest apart, those of
    the top level before those of nodes: a node often repeats what the top level says.
    """
    configs = [dict(leaves(_decisive(run))) for run in runs]
    overrides = [dict(typed_overrides(run.overrides)) for run in runs]
    columns: dict[str, list[Any]] = {}
    for key in dict.fromkeys(chain.from_iterable(overrides)):
        pairs = zip(configs, overrides, strict=True)
        values = [config.get(key, typed.get(key, "(default)")) for config, typed in pairs]
        if _count_distinct([values]) > 1:
            columns[key] = values
    known = _count_distinct(columns.values())
    for key in sorted(dict.fromkeys(chain.from_iterable(configs)), key=lambda key: key.count(".")):
        values = [config.get(key) for config in configs]
        if (distinct := _count_distinct([*columns.values(), values])) > known:
            columns[key], known = values, distinct
    return columns


def _count_distinct(columns: Iterable[list[Any]]) -> int:
    """How many different rows the columns have; 1 without any column."""
    return len(set(zip(*(map(repr, column) for column in columns), strict=True))) or 1


def typed_overrides(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value of each override that decides something; ``~key`` has the value ``~``."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key.startswith("~"):
            key, value = key.lstrip("~"), "~"
        if key != "seed" and not key.startswith("hydra") and key.split(".")[0] not in IRRELEVANT:
            yield key, value


def shown(value: Any) -> str:
    """A value as a report shows it: text as it is, numbers to six digits, all else as JSON."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def counted(number: int | str, noun: str) -> str:
    """Such as "1 seed", "2 seeds" or "no seeds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def is_numeric(values: Iterable[Any]) -> bool:
    """Whether all are numbers; a bool is none."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _decisive(entry: RunSummary) -> dict[str, Any]:
    """What of a run's config, the seed aside, has a say in its result, and its corpus's fingerprint."""
    config = {key: value for key, value in entry.config.items() if key not in (*IRRELEVANT, "seed")}
    if isinstance(config.get("corpus"), dict) and (fingerprint := value_at(entry.corpus, "fingerprint")):
        config["corpus"] = {**config["corpus"], "fingerprint": str(fingerprint)[:12]}
    return config


def _without_seed(entry: RunSummary) -> str:
    """The same text for runs that differ in nothing but the seed; the same rows can lie in other files."""
    config = _decisive(entry)
    if value_at(config, "corpus.fingerprint"):
        kept = ("fingerprint", "cleaner", "label_names")
        config["corpus"] = {key: config["corpus"].get(key) for key in kept}
    return json.dumps(config, sort_keys=True)


def _metric(entries: Sequence[RunSummary], requested: str | None) -> Metric:
    finished = [entry for entry in entries if entry.status == "finished"]
    recorded = sorted({name for entry in finished for name in entry.metrics})
    watched = Counter(str(entry.config.get("monitor")) for entry in finished or entries if entry.config)
    if requested is None:
        if len(watched) > 1:
            what = f"the runs watched different metrics: {', '.join(sorted(watched))}"
            raise ConfigError(what, where="monitor", fix=f"--metric {next(iter(watched)).split()[-1]}")
        requested = next(iter(watched), "min val/loss")
    mode, _, name = requested.strip().rpartition(" ")
    if mode not in ("", "min", "max"):
        what, fix = f"'{requested}' is no metric", "val/loss, or max val/accuracy"
        raise ConfigError(what, where="--metric", fix=fix)
    if recorded and name not in recorded:
        what, fix = f"no finished run has '{name}'", f"one of {', '.join(recorded)}"
        raise ConfigError(what, where="--metric", fix=fix)
    modes = {monitor.split()[-1]: monitor.split()[0] for monitor in watched if " " in monitor}
    usual = "min" if name.endswith(("loss", "error")) else "max"
    return Metric(name, mode or modes.get(name, usual))


def _why_unranked(entry: RunSummary, metric: Metric) -> str:
    """Why an entry has no place among the others; empty if it has."""
    if entry.status != "finished":
        return entry.cause or entry.status
    if metric.name not in entry.metrics:
        return f"it has no {metric.name}"
    value = entry.metrics[metric.name]
    return "" if math.isfinite(value) else f"its {metric.name} is {value}"


def _notes(ranked: Sequence[RunSummary], repeated: int, keys: Iterable[str]) -> list[str]:
    notes = []
    names = sorted({str(value_at(run.config, "corpus.name")) for run in ranked})
    rows = {str(value_at(run.corpus, "fingerprint", value_at(run.config, "corpus.name"))) for run in ranked}
    if len(rows) > 1 and (len(names) > 1 or not DRAWN & {*keys}):
        what = f"{len(rows)} different corpora ({', '.join(names)})"
        notes.append(f"these runs are of {what}: beware of comparing")
    if repeated:
        notes.append(f"{repeated} runs repeat another's configuration and seed: the newest of each counts")
    if any(run.config.get("limit_rows") is not None for run in ranked):
        notes.append("some runs used only a part of their corpus (limit_rows)")
    return notes
