"""How every verb after training starts: the run or model folder it is given, opened and checked."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bunryu.about import About, read_labels
from bunryu.errors import ConfigError, ModelError
from bunryu.runs import SCHEMA, Run

if TYPE_CHECKING:  # a wrong path is answered before torch is imported
    from bunryu.predictor import Predictor

RUNTIMES = ("torch", "onnx")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are errors like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        raise ConfigError(message, fix=f"{self.prog} --help")


@dataclass(frozen=True)
class Opened:
    """What a path led to: a model folder, and the run it belongs to, if any."""

    model: Path
    run: Run | None

    @property
    def name(self) -> str:
        """How it is shown: no path in it, since it may be published."""
        return f"{self.run.path.parent.name}/{self.run.path.name}" if self.run else self.model.name

    @property
    def about(self) -> About:
        """What the model folder says of itself."""
        return About.read(self.model)

    @property
    def labels(self) -> list[str]:
        """The names of the classes in id order."""
        return read_labels(self.model)

    @property
    def folder(self) -> Path:
        """Where what is made of it is written."""
        return self.run.path if self.run else self.model


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments with which predict, serve and evaluate choose a model."""
    parser.add_argument("run", type=Path, help="a run directory, or a model folder alone")
    parser.add_argument("--checkpoint", metavar="FILE", help="instead of the best: last.ckpt, or a path")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda:0, mps")
    parser.add_argument("--runtime", choices=RUNTIMES, default="torch", help="onnx: what bunryu export wrote")


def locate(path: Path) -> Opened:
    """Find the run and the model folder that a path names.

    Raises:
        ConfigError: if it is neither a run directory nor a model folder.
        ModelError: if the run has no model yet, or its labels are not the model's.
    """
    path = path.expanduser()
    if (path / "manifest.json").is_file():
        return _of_run(Run(path))
    if (path / "bunryu.json").is_file():
        parent = path.resolve().parent
        inside = path.resolve().name == "model" and (parent / "manifest.json").is_file()
        return _of_run(Run(parent)) if inside else Opened(path.resolve(), None)
    raise ConfigError(
        "neither a run directory nor a model folder" if path.exists() else "no such directory",
        where=str(path),
        fix=_nearby(path),
    )


def find_run(path: Path) -> Run:
    """The run in a directory, its manifest readable.

    Raises:
        ConfigError: if it is no run directory.
        ModelError: if its manifest is damaged or of a later bunryu.
    """
    path = path.expanduser()
    if not (path / "manifest.json").is_file():
        what = "not a run directory" if path.exists() else "no such directory"
        raise ConfigError(what, where=str(path), fix=_nearby(path))
    run = Run(path)
    _read_manifest(run)
    return run


def find_checkpoint(opened: Opened, name: str) -> Path:
    """The checkpoint of a name such as ``last.ckpt`` or ``last``, or at a path.

    Raises:
        ConfigError: with the checkpoints there are.
    """
    folder = opened.folder / "checkpoints"
    for path in (folder / name, folder / f"{name}.ckpt", Path(name).expanduser()):
        if path.is_file():
            return path
    there = sorted(path.name for path in folder.glob("*.ckpt"))
    raise ConfigError(
        f"no checkpoint '{name}'", where=str(folder), fix=f"one of {', '.join(there)}" if there else "a path"
    )


def _of_run(run: Run) -> Opened:
    status, labels = _read_manifest(run)
    model = run.path / "model"
    if not model.is_dir():
        raise ModelError(
            f"the run is {status} and has no model/", where=str(run.path), fix=f"bunryu resume {run.path}"
        )
    _check_labels(model, labels)
    return Opened(model, run)


def _read_manifest(run: Run) -> tuple[str, list[str] | None]:
    """The run's status and its labels, if it came to know them."""
    try:
        manifest = run.manifest
        status, later = manifest["status"], manifest["schema"] > SCHEMA
        labels = (manifest.get("corpus") or {}).get("labels")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"its manifest.json is damaged: {error}", where=str(run.path)) from None
    if later:
        raise ModelError("the run was made by a later bunryu", where=str(run.path), fix="use that version")
    return status, labels


def _check_labels(model: Path, labels: list[str] | None) -> None:
    """Refuse a model whose classes are not those the run was trained on."""
    names = read_labels(model)
    if labels is not None and names != labels:
        raise ModelError(
            f"the model's labels are {names[:10]}, the run's {labels[:10]}",
            where=str(model / "config.json"),
            fix="the model/ this run wrote",
        )


def _nearby(path: Path) -> str:
    """The newest run below a folder of runs, such as outputs/."""
    runs = [manifest.parent for depth in ("*", "*/*") for manifest in path.glob(f"{depth}/manifest.json")]
    if not runs:
        return "a directory that bunryu train made, such as outputs/<corpus>-<model>/<time>-<random>"
    return f"its newest run is {max(runs, key=lambda run: run.name)}"


def open_predictor(
    path: Path, checkpoint: str | None = None, runtime: str = "torch", device: str = "auto"
) -> Predictor:
    """Open what a path names and load it.

    Args:
        path: a run directory or a model folder.
        checkpoint: another checkpoint than the best, by name or path.
        runtime: ``torch``, or ``onnx`` for what ``bunryu export`` wrote.
        device: as in ``predictor.load_predictor``.

    Raises:
        ConfigError: if there is no such run, checkpoint, export or device.
        ModelError: if what is there cannot be trusted or does not fit together.
    """
    # PyTorch keeps code for the last 1024 shapes of matrix products, some 300 MB: hardly a batch has the
    # shape of another. Read when torch is imported; the products stay the same to the bit.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    opened = locate(path)
    chosen = None if checkpoint is None else find_checkpoint(opened, checkpoint)
    if runtime == "onnx":
        from bunryu.onnx_runtime import load_onnx_predictor

        if chosen is not None:
            raise ConfigError(
                "an export has weights of its own", where="--checkpoint", fix="export that checkpoint"
            )
        exported = load_onnx_predictor(opened.folder / "exports" / "onnx", opened.name, device)
        if list(exported.labels) != opened.labels:
            raise ModelError(
                f"the export's labels are {list(exported.labels)[:10]}, the model's {opened.labels[:10]}",
                where=str(opened.folder / "exports" / "onnx"),
                fix="export the run anew",
            )
        return exported
    from bunryu.predictor import load_predictor

    return load_predictor(opened.model, opened.name, checkpoint=chosen, device=device)
