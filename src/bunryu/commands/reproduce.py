"""``bunryu reproduce``: run a finished run's configuration again, and compare the results."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from bunryu.commands.arguments import Parser, add_corpus_root, add_env_argument
from bunryu.config.instantiate import check_targets
from bunryu.config.record import check_variables, located, resolved
from bunryu.errors import ConfigError, printable
from bunryu.runs.find import find_run
from bunryu.runs.provenance import code_changes, config_changes, surroundings_changes
from bunryu.runs.run import Run
from bunryu.system import ranks
from bunryu.system.console import log_to_console
from bunryu.system.files import sha256

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of a loss or score; what another processor or thread count makes of a short run
IDENTICAL, WITHIN, DIFFERENT = 0, 5, 6


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    run = find_run(options.run)
    manifest, where = run.manifest, str(run.path)
    if manifest["status"] != "finished":
        what = f"the run is {manifest['status']}: there is nothing to compare with yet"
        raise ConfigError(what, where=where, fix=f"bunryu resume {where}")
    print(printable("\n".join(["different now from when the run was made:", *_changes(run, options)])))
    if options.dry_run:
        return 0
    check_variables(run.config, where, options.env)
    config = located(run.config, options.corpus_root)
    check_targets(resolved(config, where))  # a refused run leaves no directory
    if changes := config_changes(manifest["config"], run.config):
        what = "its config.yaml is not the one it began with:\n  " + "\n  ".join(changes)
        raise ConfigError(what, where=where, fix="the file as it was; or bunryu train, as a run of its own")
    from bunryu.training import distributed  # torch and Lightning: only once there is something to train

    distributed.check(run)
    if ranks.world_size() > 1:
        what = f"{ranks.world_size()} processes were started: reproduce starts those of a run itself"
        raise ConfigError(what, where=where, fix=f"bunryu reproduce {where}, without torchrun or srun")
    argv, kind = ["bunryu", "reproduce", *arguments], run.path.parent
    again = Run.create(kind.parent, kind.name, config, argv, manifest["overrides"])
    again.record(reproduces=run.path.name)
    log_to_console()
    log.info("run directory: %s", again.path)
    distributed.execute(again, threads=manifest.get("threads"))
    code, lines = compare(run, again, options.tolerance)
    print(printable("\n".join(lines)), flush=True)
    return code


def compare(run: Run, again: Run, tolerance: float) -> tuple[int, list[str]]:
    """Compare results, recorded metrics and weights: the exit code, and what was compared, a line each."""
    lines, farthest = [], 0.0
    before, now = (
        {name: value for name, value in each.results.items() if isinstance(value, float)}
        for each in (run, again)
    )
    for name in sorted(before.keys() | now.keys()):
        difference = abs(before.get(name, math.nan) - now.get(name, math.nan))
        farthest = max(farthest, difference if math.isfinite(difference) else math.inf)
        lines.append(f"  {name:<14} {before.get(name)} -> {now.get(name)}")
    same_metrics = run.metrics == again.metrics
    lines.append(f"  metrics.csv    {'the same' if same_metrics else _first_difference(run, again)}")
    weights = [sha256(each.path / "model" / "model.safetensors") for each in (run, again)]
    lines.append(f"  weights        {weights[0][:16]} -> {weights[1][:16]}")
    lines.append(f"  run            {again.path}")
    if weights[0] == weights[1] and same_metrics and farthest == 0.0:
        return IDENTICAL, ["identical", *lines]
    if farthest <= tolerance:
        return WITHIN, [f"not identical, but within {tolerance:g}", *lines]
    return DIFFERENT, [f"different: by up to {farthest:.3g}, more than {tolerance:g}", *lines]


def _changes(run: Run, options: argparse.Namespace) -> list[str]:
    found = [*code_changes(run.manifest), *surroundings_changes(run.manifest), *_corpus_changes(run, options)]
    found += config_changes(run.manifest["config"], run.config)
    return [f"  {line}" for line in found] or ["  nothing"]


def _corpus_changes(run: Run, options: argparse.Namespace) -> list[str]:
    from bunryu.training.inputs import corpus_of

    corpus = corpus_of(run, options.env, options.corpus_root)
    before, now = run.manifest.get("corpus", {}).get("fingerprint", "(unknown)"), corpus.fingerprint()
    return [] if before == now else [f"corpus fingerprint {before[:12]} -> {now[:12]}"]


def _first_difference(run: Run, again: Run) -> str:
    for before, now in zip(run.metrics, again.metrics, strict=False):
        if before != now:
            epoch, step, name, value = before
            return f"differs first at epoch {epoch}, step {step}: {name} {value} -> {now[3]}"
    return f"{len(run.metrics)} rows -> {len(again.metrics)}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        "bunryu reproduce",
        description=__doc__.replace("``", ""),
        epilog="exit codes: 0 identical, 5 within the tolerance, 6 different",
    )
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("--dry-run", action="store_true", help="only say what is different now")
    tolerance = f"of losses and scores ({TOLERANCE:g})"
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help=tolerance)
    add_env_argument(parser)
    add_corpus_root(parser)
    return parser.parse_args(arguments)
