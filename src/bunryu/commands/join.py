"""``bunryu join``: one of several processes that train a run together; what ``devices`` above 1 starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bunryu.commands.arguments import Parser
from bunryu.runs.find import find_run
from bunryu.system import ranks
from bunryu.system.console import log_to_console
from bunryu.system.signals import stop_with_input


def main(arguments: Sequence[str]) -> int:
    parser = Parser("bunryu join", description=__doc__.replace("``", ""))
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--resume", action="store_true", help="from its newest checkpoint")
    parser.add_argument("--despite-changes", action="store_true", help="though the corpus changed")
    options = parser.parse_args(arguments)
    stop_with_input()
    log_to_console()
    if ranks.rank() > 0:  # the first process alone logs
        logging.getLogger("bunryu").setLevel(logging.ERROR)
    from bunryu.training import distributed

    run = find_run(options.run)
    distributed.execute(run, resume=options.resume, despite_changes=options.despite_changes)
    return 0
