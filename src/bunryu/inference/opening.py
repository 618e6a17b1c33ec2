"""The run or model folder that a verb is given: found, checked, and loaded as a predictor."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bunryu.errors import ConfigError, ModelError
from bunryu.models.metadata import GRAPH, ModelMetadata, read_labels
from bunryu.runs.find import newest_run_hint
from bunryu.runs.run import BEST, Run
from bunryu.system.files import refuse_links, refuse_occupied

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from bunryu.inference.predictor import Predictor


@dataclass(frozen=True)
class OpenedModel:
    """A model folder, and the run it belongs to, if any."""

    model: Path
    run: Run | None
    unfinished: str = ""  # how far the run has come, whose best checkpoint so far it then is

    @property
    def name(self) -> str:
        """What pages and messages call it: no path, since pages are published."""
        shown = f"{self.run.path.parent.name}/{self.run.path.name}" if self.run else self.model.name
        return f"{shown} (UNFINISHED: {self.unfinished})" if self.unfinished else shown

    @property
    def metadata(self) -> ModelMetadata:
        return ModelMetadata.read(self.model)

    @property
    def labels(self) -> list[str]:
        """The names of the classes in id order."""
        return read_labels(self.model)

    @property
    def folder(self) -> Path:
        """Where evaluations and exports of it lie."""
        return self.run.path if self.run else self.model

    @property
    def onnx(self) -> Path:
        """The folder of its export to ONNX: itself, if it is what ``bunryu export --output`` wrote."""
        return self.model if (self.model / GRAPH).is_file() else self.folder / "exports" / "onnx"

    def place(self, kind: str, name: str, elsewhere: Path | None) -> Path:
        """The folder a verb writes: ``elsewhere``, if it is new, or ``kind/name`` unless a link leads out."""
        if elsewhere is None:
            refuse_links(self.folder, kind)
            return self.folder / kind / name
        refuse_occupied(elsewhere)
        return elsewhere


def locate(path: Path) -> OpenedModel:
    """The run and model folder that a path names; ConfigError if it is neither, ModelError if no model."""
    path = path.expanduser()
    if (path / "manifest.json").is_file():
        return _of_run(Run(path))
    if (path / "bunryu.json").is_file():
        parent = path.resolve().parent
        inside = path.resolve().name == "model" and (parent / "manifest.json").is_file()
        return _of_run(Run(parent)) if inside else OpenedModel(path.resolve(), None)
    raise ConfigError(
        "neither a run directory nor a model folder" if path.exists() else "no such directory",
        where=str(path),
        fix=newest_run_hint(path),
    )


def find_checkpoint(opened: OpenedModel, name: str | None) -> Path | None:
    """The checkpoint of a name such as ``last.ckpt`` or ``last``, or at a path; None for model/ itself."""
    folder = opened.folder / "checkpoints"
    if name is None:
        return folder / BEST if opened.unfinished else None
    for path in (folder / name, folder / f"{name}.ckpt", Path(name).expanduser()):
        if path.is_file():
            return path
    there = sorted(path.name for path in folder.glob("*.ckpt"))
    raise ConfigError(
        f"no checkpoint '{name}'", where=str(folder), fix=f"one of {', '.join(there)}" if there else "a path"
    )


def _of_run(run: Run) -> OpenedModel:
    """The run with its model, whose classes have to be those the run was trained on."""
    manifest, model = run.manifest, run.path / "model"
    status, labels = manifest["status"], manifest.get("corpus", {}).get("labels")
    unfinished = "" if status == "finished" else _progress(run, status)
    if not model.is_dir() or (unfinished and not (run.path / "checkpoints" / BEST).is_file()):
        what, fix = f"the run is {status} and has no model yet", f"bunryu resume {run.path}"
        raise ModelError(what, where=str(run.path), fix=fix)
    names = read_labels(model)
    if labels is not None and names != labels:
        raise ModelError(
            f"the model's labels are {names[:10]}, the run's {labels[:10]}",
            where=str(model / "config.json"),
            fix="the model/ this run wrote",
        )
    return OpenedModel(model, run, unfinished)


def _progress(run: Run, status: str) -> str:
    """How an unfinished run stands: ``interrupted in epoch 2 of 3``."""
    rows = run.metrics
    return f"{status} in epoch {rows[-1][0] + 1 if rows else 1} of {run.config['epochs']}"


def open_predictor(
    path: Path, checkpoint: str | None = None, runtime: str = "torch", device: str = "auto"
) -> Predictor:
    """A predictor of a run directory or model folder, run by ``torch``, or ``onnx`` for what was exported.

    Raises ConfigError if there is no such run, checkpoint, export or device; ModelError if what is there
    cannot be trusted or does not fit together.
    """
    # PyTorch keeps code for the last 1024 shapes of matrix products, some 300 MB: hardly a batch has the
    # shape of another. Read when torch is imported; the products stay the same to the bit.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    opened = locate(path)
    chosen = find_checkpoint(opened, checkpoint)
    if opened.unfinished:
        log.warning("%s: its best checkpoint so far; to go on: bunryu resume", opened.name)
    if runtime == "onnx":
        from bunryu.inference.onnx_runtime import load_onnx_predictor

        if checkpoint is not None:
            fix = "export that checkpoint"
            raise ConfigError("an export has weights of its own", where="--checkpoint", fix=fix)
        folder = opened.onnx
        exported = load_onnx_predictor(folder, opened.name, device)
        if list(exported.labels) != opened.labels:
            what = f"the export's labels are {list(exported.labels)[:10]}, the model's {opened.labels[:10]}"
            raise ModelError(what, where=str(folder), fix="export the run anew")
        return exported
    from bunryu.inference.predictor import load_predictor

    return load_predictor(opened.model, opened.name, checkpoint=chosen, device=device)
