"""``bunryu resume``: go on with a run that was interrupted, to the very result it would have had."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from bunryu.console import log_to_console, summary
from bunryu.drift import of_code, of_config
from bunryu.errors import ConfigError
from bunryu.opening import Parser, find_run

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run ``bunryu resume``; returns the exit code."""
    options = _parse(arguments)
    run = find_run(options.run)
    if run.manifest["status"] == "finished":
        print(f"already finished: {run.path}")
        return 0
    changes = [*of_code(run.manifest), *of_config(run.manifest["config"], run.config)]
    if changes and not options.despite_changes:
        raise ConfigError(
            "what the run began with has changed since:\n  " + "\n  ".join(changes),
            where=str(run.path),
            fix="the versions and files as they were; or --despite-changes, and another result",
        )
    log_to_console()
    from bunryu import distribution  # torch and Lightning: only once there is something to train

    results = distribution.execute(run, resume=True, despite_changes=options.despite_changes)
    log.info("%s", summary(run, results))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("bunryu resume", description=__doc__.replace("``", ""))
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument(
        "--despite-changes",
        action="store_true",
        help="go on though code, configuration or corpus changed",
    )
    return parser.parse_args(arguments)
