"""The run directory: the only thing that training leaves and that every later verb needs."""

from __future__ import annotations

import csv
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bunryu.errors import ModelError
from bunryu.runs.records import CONFIG, MANIFEST, RESULTS, now
from bunryu.system.files import disk_errors_at, replaced, write_atomically
from bunryu.system.records import VERSIONED, check_kind, damaged, read_checked, read_table, write_record
from bunryu.system.secrets import mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA = 2
BEST = "best.ckpt"  # in checkpoints/
METRICS_HEADER = "epoch,step,name,value\n"


@dataclass(frozen=True)
class Run:
    """One run directory. Paths written inside it are relative, so that it can be moved."""

    path: Path
    writes: bool = True  # False in all but the first of several processes that train it together

    @classmethod
    def create(
        cls, root: Path, kind: str, config: Mapping[str, Any], argv: Sequence[str],
        overrides: Sequence[str], on_created: Callable[[Path], None] = lambda path: None,
    ) -> Run:  # fmt: skip
        """Make ``root/kind/<time>-<random>`` with its config and manifest.

        Args:
            kind: ``<corpus>-<model>``; what cannot stand in a file name becomes ``-``.
            config: plain values, secrets still as ``${oc.env:NAME}``.
            on_created: called with the path while it is still empty; who records it then loses no run.
        """
        from bunryu.runs import provenance

        parent = root / re.sub(r"[^\w.-]+", "-", kind).strip("-")
        parent.mkdir(parents=True, exist_ok=True)
        path = _new_directory(parent)
        on_created(path)
        run = cls(path)
        run._write_config(config)
        run._write_manifest({
            "schema": SCHEMA, "status": "running", "argv": list(argv), "overrides": list(overrides),
            "seed": config["seed"], "config": dict(config), "start": now(), "end": None,
            "exit_reason": None, **provenance.facts(),
        })  # fmt: skip
        write_atomically(path / "metrics.csv", METRICS_HEADER)
        return run

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands; ModelError if it is damaged or another version of bunryu wrote it."""
        path = self.path / "manifest.json"
        facts = dict(read_checked(path, VERSIONED))
        _refuse_other_schemas(facts["schema"], self.path)
        check_kind(path, facts, MANIFEST)
        return facts

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's config, secrets still as ``${oc.env:NAME}``; ModelError if it is damaged."""
        return dict(read_checked(self.path / "config.yaml", CONFIG))

    @property
    def results(self) -> dict[str, Any]:
        """The content of results.json; empty before there is one."""
        path = self.path / "results.json"
        return dict(read_checked(path, RESULTS)) if path.is_file() else {}

    @property
    def metrics(self) -> list[tuple[int, int, str, float]]:
        """The rows of metrics.csv: epoch, step, name, value; ModelError if it is damaged."""
        path = self.path / "metrics.csv"
        rows = csv.reader(read_table(path).splitlines()[1:])
        try:
            return [(int(epoch), int(step), name, float(value)) for epoch, step, name, value in rows]
        except (ValueError, csv.Error) as error:
            raise damaged(path, f"line {rows.line_num + 1}: {error}") from None

    def metrics_bytes(self) -> int:
        """How long metrics.csv is; so much of it is on the disk then."""
        with open(self.path / "metrics.csv", "rb") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def cut_metrics(self, size: int | None) -> None:
        """Cut metrics.csv to its first ``size`` bytes (None: to its header); ModelError if it is shorter."""
        path = self.path / "metrics.csv"
        if not self.writes:
            return
        if size is None:
            write_atomically(path, METRICS_HEADER)
        elif (there := path.stat().st_size) < size:
            raise ModelError(f"metrics.csv has lost rows: {there} bytes of {size}", where=str(self.path))
        else:
            os.truncate(path, size)

    def restart(self) -> None:
        resumed = [*self.manifest.get("resumed", []), now()]
        self.record(status="running", end=None, exit_reason=None, resumed=resumed)

    def record(self, **facts: Any) -> None:
        self._write_manifest({**self.manifest, **facts})

    def replace_config(self, config: Mapping[str, Any]) -> None:
        """Go on with another config, such as one whose files are elsewhere."""
        self._write_config(config)
        self.record(config=dict(config))
        vars(self).pop("config", None)  # it was kept from an earlier reading

    def end(self, status: str, reason: str | None = None) -> None:
        """Record that the run ended: ``finished``, ``failed`` or ``interrupted``, and why."""
        self.record(status=status, end=now(), exit_reason=reason)

    def is_finished(self) -> bool:
        """Whether it is finished; recorded now if that alone was left, as by a disk that was full then."""
        if self.manifest["status"] != "finished" and self.results:
            self.end("finished")
        return bool(self.manifest["status"] == "finished")

    def log_metrics(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Append rows to metrics.csv; floats are written so that reading gives the same bits."""
        if not self.writes:
            return
        path = self.path / "metrics.csv"
        with disk_errors_at(path), open(path, "a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                (epoch, step, name, repr(float(value))) for name, value in values.items()
            )

    def write_results(self, results: Mapping[str, Any]) -> None:
        write_record(self.path / "results.json", results)

    def write_predictions(
        self, split: str, rows: Sequence[int], labels: Sequence[int], logits: npt.NDArray[np.float32],
        names: Sequence[str],
    ) -> None:  # fmt: skip
        """Write predictions/<split>.csv in row order.

        ``rows`` are counted from 0 over the rows of the file that are used, ``labels`` are true class ids,
        ``logits`` of shape (rows, classes), ``names`` the shown names of the classes in id order.
        """
        if not self.writes:
            return
        from bunryu.metrics import score_columns, score_fields  # numpy

        folder = self.path / "predictions"
        folder.mkdir(exist_ok=True)
        with replaced(folder / f"{split}.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", "label", "prediction", *score_columns(names, "logit")])
            for index in sorted(range(len(rows)), key=rows.__getitem__):
                predicted = names[int(logits[index].argmax())]
                fields = score_fields(logits[index], names)
                writer.writerow([rows[index], names[labels[index]], predicted, *fields])

    def _write_config(self, config: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
        write_atomically(self.path / "config.yaml", text)

    def _write_manifest(self, facts: Mapping[str, Any]) -> None:
        if self.writes:  # git's diff may hold what no override does
            write_record(self.path / "manifest.json", mask(facts))


def kind_of(config: Mapping[str, Any]) -> str:
    """``<corpus>-<model>``: the folder of all runs like this one."""
    return f"{config['corpus']['name']}-{Path(config['model']['name']).name}"


def _refuse_other_schemas(schema: int, path: Path) -> None:
    if schema > SCHEMA:
        raise ModelError("the run was made by a later bunryu", where=str(path), fix="use that version")
    if schema < SCHEMA:
        what = f"the run was made by bunryu before 0.1 (run directory schema {schema})"
        fix = "train it again; or copy its model/ folder out of it: predict, serve and export take that"
        raise ModelError(what, where=str(path), fix=fix)


def _new_directory(parent: Path) -> Path:
    while True:
        path = parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(3)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
