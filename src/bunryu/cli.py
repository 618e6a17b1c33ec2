"""``bunryu <verb>``: finds the verb's module, imports only that, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from bunryu.errors import BunryuError
from bunryu.keys import nearest
from bunryu.system.signals import Interrupted

VERBS = {
    "train": "compose a run from config groups and train it",
    "check": "what a run or a sweep would take, and what would fail in it, without training",
    "resume": "go on with a run that was interrupted, to the very same result",
    "reproduce": "run a finished run's configuration again and compare",
    "evaluate": "score a run's own split, or a labelled file: figures, mistakes and a page of plots",
    "report": "compare runs and sweeps: tables, plots, whether the best is best, the winner as a config",
    "predict": "label and probabilities for every row of a file or line of standard input",
    "serve": "put a run behind a web page and an HTTP API",
    "export": "write a run's model for another runtime",
    "import-checkpoint": "make a model folder of a checkpoint of the tutorial's library",
}
# Started by bunryu itself: a sweep's job in a process of its own, and a further process of one run.
INTERNAL_VERBS = ("job", "join")

USAGE = """bunryu: fine-tune BERT document classifiers from composable configs

usage: bunryu <verb> [arguments]

{verbs}

bunryu <verb> --help tells more. In bash, completion of verbs, groups, options and keys:
  eval "$(bunryu train -sc install=bash)"
"""


def main() -> None:
    """Entry point of the ``bunryu`` command."""
    logging.raiseExceptions = False  # a reader that went away is no reason to fill the terminal
    if sys.stdin is None:  # closed: else the next file to be opened would take its place
        os.open(os.devnull, os.O_RDONLY)
    try:
        code = run(sys.argv[1:])
    except BrokenPipeError:  # a reader such as head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(verbs="\n".join(f"  {verb:<18} {what}" for verb, what in VERBS.items())), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"bunryu {version('bunryu')}")
        return 0
    if arguments[0] == "-sc":
        return _complete(arguments)
    verb = arguments[0]
    if verb not in (*VERBS, *INTERNAL_VERBS):
        near = nearest(verb, VERBS)
        meant = f"did you mean '{near}'? " if near else ""
        print(f"bunryu: there is no verb '{verb}'; {meant}verbs: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    from bunryu.system.files import bunryu_error_of  # once there is a verb: help and a typo need neither
    from bunryu.system.secrets import mask_streams

    mask_streams(sys.stdout, sys.stderr)
    try:
        code: int = importlib.import_module(f"bunryu.commands.{verb.replace('-', '_')}").main(arguments[1:])
        sys.stdout.flush()  # where it is a file, the disk may be full
        return code
    except (BunryuError, OSError) as error:
        if (told := bunryu_error_of(error)) is None:
            raise
        print(f"bunryu {verb}: {told}", file=sys.stderr)
        return told.exit_code
    except KeyboardInterrupt:
        print(f"bunryu {verb}: interrupted", file=sys.stderr)
        return 130
    except Interrupted as error:
        print(f"bunryu {verb}: interrupted by {error}", file=sys.stderr)
        return error.exit_code


def _complete(arguments: Sequence[str]) -> int:
    """Print what bash may complete: verbs, and after ``train`` what Hydra offers."""
    line = os.environ.get("COMP_LINE", "")
    program, _, rest = line.lstrip().partition(" ")
    verb, space, words = rest.lstrip().partition(" ")
    if not space:
        print(" ".join(name for name in VERBS if name.startswith(verb)))
        return 0
    if verb != "train":
        return 0
    os.environ["COMP_LINE"] = f"{program} {words}"
    code: int = importlib.import_module("bunryu.commands.train").main(arguments)
    return code
