"""The argument parser of the verbs, and the arguments with which they choose a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from bunryu.errors import ConfigError

RUNTIMES = ("torch", "onnx")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are errors like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        raise ConfigError(message, fix=f"{self.prog} --help")


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of verbs that read a run's own corpus: what of here it may have, and where it is now."""
    help_ = "a variable of the environment that the run's config may have; can be given again"
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help=help_)
    help_ = "where the files of the run's corpus are now, if they have moved"
    parser.add_argument("--corpus-root", type=Path, metavar="FOLDER", help=help_)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments with which predict, serve and evaluate choose a model."""
    parser.add_argument("run", type=Path, help="a run directory, or a model folder alone")
    parser.add_argument("--checkpoint", metavar="FILE", help="instead of the best: last.ckpt, or a path")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda:0, mps")
    parser.add_argument("--runtime", choices=RUNTIMES, default="torch", help="onnx: what bunryu export wrote")
