"""``bunryu resume``: go on with a run that was interrupted, to the very result it would have had."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from bunryu.commands.arguments import Parser, add_corpus_arguments
from bunryu.errors import ConfigError
from bunryu.runs.find import find_run
from bunryu.runs.lock import locked
from bunryu.runs.provenance import code_changes, config_changes
from bunryu.system.console import log_to_console

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    run = find_run(options.run)
    if run.is_finished():
        print(f"already finished: {run.path}")
        return 0
    from bunryu.config.record import check_variables, located  # Hydra: only where a config is gone on with

    check_variables(run.config, str(run.path), options.env)
    changes = [*code_changes(run.manifest), *config_changes(run.manifest["config"], run.config)]
    if changes and not options.despite_changes:
        what = "what the run began with has changed since:\n  " + "\n  ".join(changes)
        fix = "the versions and files as they were; or --despite-changes, and another result"
        raise ConfigError(what, where=str(run.path), fix=fix)
    if (config := located(run.config, options.corpus_root)) != run.config:
        with locked(run.path):  # no process that trains it now has its config changed
            run.replace_config(config)
    log_to_console()
    from bunryu.training import distributed, summary  # torch and Lightning: once there is something to train

    results = distributed.execute(run, resume=True, despite_changes=options.despite_changes)
    log.info("%s", summary.closing_table(run, results))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("bunryu resume", description=__doc__.replace("``", ""))
    parser.add_argument("run", type=Path, help="a run directory")
    help_ = "go on though code, configuration or corpus changed"
    parser.add_argument("--despite-changes", action="store_true", help=help_)
    add_corpus_arguments(parser)
    return parser.parse_args(arguments)
