"""``bunryu job``: one job of a sweep; what launchers start, and no command one needs to type."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bunryu.commands.arguments import Parser
from bunryu.sweeps import job as sweep_job
from bunryu.sweeps.ledger import Ledger
from bunryu.system.signals import stop_with_input


def main(arguments: Sequence[str]) -> int:
    parser = Parser("bunryu job", description=__doc__.replace("``", ""))
    parser.add_argument("sweep", type=Path, help="a sweep's folder")
    parser.add_argument("identity", help="the job's")
    options = parser.parse_args(arguments)
    if not sys.stdin.isatty():
        stop_with_input()
    return sweep_job.run_job(Ledger(options.sweep), options.identity)
