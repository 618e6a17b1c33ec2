"""Which metric counts, which keys were swept, and which runs differ in nothing but their seed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bunryu.errors import ConfigError
from bunryu.reports.entries import RunSummary
from bunryu.sweeps.ledger import IRRELEVANT

DEFAULT = "(default)"  # of a group whose option no override named


@dataclass(frozen=True)
class Metric:
    """What runs are compared by.

    Args:
        name: such as ``val/loss``.
        mode: ``min`` or ``max``, whichever is better.
    """

    name: str
    mode: str

    def __str__(self) -> str:
        return f"{self.mode} {self.name}"

    @property
    def sign(self) -> int:
        """What makes larger better."""
        return 1 if self.mode == "max" else -1


@dataclass(frozen=True)
class Group:
    """Finished runs that differ in nothing but the seed.

    Args:
        values: what its swept keys are set to.
        runs: seed -> the newest finished run of it, the best first.
    """

    values: dict[str, Any]
    runs: dict[Any, RunSummary]

    def scores(self, metric: Metric) -> dict[Any, float]:
        """The metric, seed by seed."""
        return {seed: run.metrics[metric.name] for seed, run in self.runs.items()}

    @property
    def label(self) -> str:
        """Its swept keys as they would be typed."""
        return " ".join(f"{key}={shown(value)}" for key, value in self.values.items()) or "this configuration"


@dataclass(frozen=True)
class Comparison:
    """What there is to compare.

    Args:
        metric: what decides.
        keys: the swept ones, but for the seed.
        groups: the best first, by their means.
        ranked: finished runs that have the metric, the best first.
        others: the rest, with why they are not ranked.
        entries: all of them.
        notes: what a reader should know.
    """

    metric: Metric
    keys: list[str]
    groups: list[Group]
    ranked: list[RunSummary]
    others: list[tuple[RunSummary, str]]
    entries: list[RunSummary]
    notes: list[str] = field(default_factory=list)

    def value(self, run: RunSummary) -> float:
        """A ranked run's metric."""
        return run.metrics[self.metric.name]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Swept key -> its value in each ranked run."""
        values = {id(run): group.values for group in self.groups for run in group.runs.values()}
        return {key: [values[id(run)][key] for run in self.ranked] for key in self.keys}

    @property
    def scores(self) -> list[float]:
        """Each ranked run's metric."""
        return [self.value(run) for run in self.ranked]


def compare(entries: Sequence[RunSummary], asked: str | None = None) -> Comparison:
    """Rank what finished, in groups that are equal up to the seed.

    Args:
        entries: runs and jobs in any state.
        asked: ``val/accuracy``, ``max val/accuracy``, or None for what the runs themselves watched.

    Raises:
        ConfigError: if runs watched different metrics, or none has the one that is asked for.
    """
    metric = _metric(entries, asked)
    ranked: list[RunSummary] = []
    others: list[tuple[RunSummary, str]] = []
    newest: dict[tuple[str, Any], RunSummary] = {}
    repeated = 0
    for entry in entries:
        if why := _unranked(entry, metric):
            others.append((entry, why))
            continue
        place = _identity(entry), entry.seed
        repeated += place in newest
        if place not in newest or entry.name > newest[place].name:
            newest[place] = entry
    ranked = sorted(newest.values(), key=lambda run: -metric.sign * run.metrics[metric.name])
    notes = _notes(ranked, repeated)
    members: dict[str, dict[Any, RunSummary]] = {}
    for run in ranked:
        members.setdefault(_identity(run), {})[run.seed] = run
    columns = swept([next(iter(runs.values())) for runs in members.values()])
    groups = [
        Group({key: values[index] for key, values in columns.items()}, runs)
        for index, runs in enumerate(members.values())
    ]
    groups.sort(key=lambda group: -metric.sign * _mean(group.scores(metric).values()))
    return Comparison(metric, list(columns), groups, ranked, others, list(entries), notes)


def swept(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Keys that tell configurations apart -> each one's value.

    First those of the command lines, then as many others as are needed to tell the rest apart, those of
    the top level before those of nodes: a node often repeats what the top level says.
    """
    leaves = [dict(_leaves(run.config)) for run in runs]
    typed = [dict(typed_overrides(run.overrides)) for run in runs]
    columns: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for overrides in typed for key in overrides):
        values = [
            leaf.get(key, overrides.get(key, DEFAULT)) for leaf, overrides in zip(leaves, typed, strict=True)
        ]
        if len(set(map(repr, values))) > 1:
            columns[key] = values
    for key in sorted(dict.fromkeys(key for leaf in leaves for key in leaf), key=lambda key: key.count(".")):
        values = [leaf.get(key) for leaf in leaves]
        known = Counter(_combinations(columns, len(runs)))
        if len(set(zip(_combinations(columns, len(runs)), map(repr, values), strict=True))) > len(known):
            columns[key] = values
    return columns


def typed_overrides(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value of each override that decides something; ``~key`` has the value ``~``."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key.startswith("~"):
            key, value = key.lstrip("~"), "~"
        if key != "seed" and not key.startswith("hydra") and key.split(".")[0] not in IRRELEVANT:
            yield key, value


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _combinations(columns: Mapping[str, list[Any]], count: int) -> list[str]:
    return [repr([values[index] for values in columns.values()]) for index in range(count)]


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if not prefix and (key == "seed" or key in IRRELEVANT):
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _identity(entry: RunSummary) -> str:
    decisive = {key: value for key, value in entry.config.items() if key not in (*IRRELEVANT, "seed")}
    return json.dumps(decisive, sort_keys=True)


def _metric(entries: Sequence[RunSummary], asked: str | None) -> Metric:
    finished = [entry for entry in entries if entry.status == "finished"]
    there = sorted({name for entry in finished for name in entry.metrics})
    watched = Counter(str(entry.config.get("monitor")) for entry in finished or entries if entry.config)
    if asked is None:
        if len(watched) > 1:
            raise ConfigError(
                f"the runs watched different metrics: {', '.join(sorted(watched))}",
                where="monitor",
                fix=f"--metric {next(iter(watched)).split()[-1]}",
            )
        asked = next(iter(watched), "min val/loss")
    mode, _, name = asked.strip().rpartition(" ")
    if mode not in ("", "min", "max"):
        raise ConfigError(f"'{asked}' is no metric", where="--metric", fix="val/loss, or max val/accuracy")
    if there and name not in there:
        raise ConfigError(f"no finished run has '{name}'", where="--metric", fix=f"one of {', '.join(there)}")
    known = {monitor.split()[-1]: monitor.split()[0] for monitor in watched if " " in monitor}
    usual = "min" if name.endswith(("loss", "error")) else "max"
    return Metric(name, mode or known.get(name, usual))


def _unranked(entry: RunSummary, metric: Metric) -> str:
    """Why an entry has no place among the others; empty if it has."""
    if entry.status != "finished":
        return entry.cause or entry.status
    if metric.name not in entry.metrics:
        return f"it has no {metric.name}"
    value = entry.metrics[metric.name]
    return "" if math.isfinite(value) else f"its {metric.name} is {value}"


def _notes(ranked: Sequence[RunSummary], repeated: int) -> list[str]:
    notes = []
    corpora = {str(dict(_leaves(run.config)).get("corpus.name")) for run in ranked}
    if len(corpora) > 1:
        notes.append(
            f"these runs are of different corpora ({', '.join(sorted(corpora))}): beware of comparing"
        )
    if repeated:
        notes.append(f"{repeated} runs repeat another's configuration and seed: the newest of each counts")
    if any(run.config.get("limit_rows") is not None for run in ranked):
        notes.append("some runs used only a part of their corpus (limit_rows)")
    return notes


def _mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
