"""The run directory: the only thing that training leaves and that every later verb needs."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bunryu.errors import ConfigError, ModelError
from bunryu.system.files import write_atomically
from bunryu.system.secrets import mask, secrets_in
from bunryu.system.signals import Interrupted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


log = logging.getLogger(__name__)

SCHEMA = 1
METRICS_HEADER = ("epoch", "step", "name", "value")


@dataclass(frozen=True)
class Run:
    """One run directory. Paths written inside it are relative, so that it can be moved.

    Args:
        path: the directory.
        writes: False in all but the first of several processes that train it together.
    """

    path: Path
    writes: bool = True

    @classmethod
    def create(
        cls,
        root: Path,
        kind: str,
        config: Mapping[str, Any],
        argv: Sequence[str],
        overrides: Sequence[str],
        named: Callable[[Path], None] = lambda path: None,
    ) -> Run:
        """Make ``root/kind/<time>-<random>`` with its config and manifest.

        Args:
            root: the folder of all runs.
            kind: ``<corpus>-<model>``; what cannot stand in a file name becomes ``-``.
            config: plain values, secrets still as ``${oc.env:NAME}``.
            argv: the command line.
            overrides: Hydra's overrides.
            named: told the path while it is empty still, so that whoever keeps it loses no run.

        Raises:
            ConfigError: if the folder cannot be made.
        """
        from bunryu.runs import provenance

        parent = root / re.sub(r"[^\w.-]+", "-", kind).strip("-")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = _new_directory(parent)
        except OSError as error:
            raise ConfigError(
                f"cannot make a run directory: {error.strerror}",
                where=str(parent),
                fix="output_root=<folder>",
            ) from None
        named(path)
        run = cls(path)
        write_atomically(path / "config.yaml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False))
        run._write_manifest(
            {
                "schema": SCHEMA,
                "status": "running",
                "argv": list(argv),
                "overrides": list(overrides),
                "seed": config["seed"],
                "config": dict(config),
                "start": _now(),
                "end": None,
                "exit_reason": None,
                **provenance.facts(),
            }
        )
        write_atomically(path / "metrics.csv", ",".join(METRICS_HEADER) + "\n")
        return run

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands."""
        facts: dict[str, Any] = json.loads((self.path / "manifest.json").read_text("utf-8"))
        return facts

    @property
    def config(self) -> dict[str, Any]:
        """The run's config, secrets still as ``${oc.env:NAME}``.

        Raises:
            ModelError: if it is not what ``create`` writes: a run directory comes from anywhere.
        """
        try:
            text = (self.path / "config.yaml").read_text("utf-8")
            # a few aliases stand for billions of values, and one for itself
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
                raise ValueError("it has aliases")
            config = yaml.safe_load(text)
            if not isinstance(config, dict):
                raise ValueError("it holds no keys")
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ModelError(f"its config.yaml is damaged: {error}", where=str(self.path)) from None
        return config

    @property
    def results(self) -> dict[str, Any]:
        """The metrics of results.json; none before there is one."""
        path = self.path / "results.json"
        results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return results

    @property
    def metrics(self) -> list[tuple[int, int, str, float]]:
        """The rows of metrics.csv: epoch, step, name, value."""
        with open(self.path / "metrics.csv", encoding="utf-8", newline="") as file:
            return [(int(e), int(s), name, float(value)) for e, s, name, value in list(csv.reader(file))[1:]]

    def metrics_bytes(self) -> int:
        """How long metrics.csv is by now, and on the disk."""
        with open(self.path / "metrics.csv", "rb") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def cut_metrics(self, size: int | None) -> None:
        """Take back what metrics.csv holds beyond ``size`` bytes; None: all but its header.

        Raises:
            ModelError: if it is shorter than that.
        """
        path = self.path / "metrics.csv"
        if not self.writes:
            return
        if size is None:
            write_atomically(path, ",".join(METRICS_HEADER) + "\n")
        elif path.stat().st_size < size:
            raise ModelError(
                f"metrics.csv has lost rows: {path.stat().st_size} bytes of {size}", where=str(self.path)
            )
        else:
            os.truncate(path, size)

    def restart(self) -> None:
        """Open the manifest again for a run that goes on."""
        resumed = [*self.manifest.get("resumed", []), _now()]
        self.record(status="running", end=None, exit_reason=None, resumed=resumed)

    def record(self, **facts: Any) -> None:
        """Add or replace facts of the manifest."""
        self._write_manifest({**self.manifest, **facts})

    def end(self, status: str, reason: str | None = None) -> None:
        """Close the manifest with ``finished``, ``failed`` or ``interrupted``."""
        self.record(status=status, end=_now(), exit_reason=reason)

    def log_metrics(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Append rows to metrics.csv; floats are written so that reading gives the same bits."""
        if not self.writes:
            return
        with open(self.path / "metrics.csv", "a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                (epoch, step, name, repr(float(value))) for name, value in values.items()
            )

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write results.json."""
        write_atomically(self.path / "results.json", _json(results))

    def write_predictions(
        self, split: str, rows: Sequence[int], labels: Sequence[int], logits: npt.NDArray[np.float32],
        names: Sequence[str],
    ) -> None:  # fmt: skip
        """Write predictions/<split>.csv in row order.

        Args:
            split: validation or test.
            rows: each prediction's row in its file, counted from 0 over the rows used.
            labels: true class ids.
            logits: shape (rows, classes).
            names: the shown names of the classes, in id order.
        """
        if not self.writes:
            return
        folder = self.path / "predictions"
        folder.mkdir(exist_ok=True)
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", "label", "prediction", *(f"logit:{name}" for name in names)])
            for index in sorted(range(len(rows)), key=rows.__getitem__):
                values = [repr(float(value)) for value in logits[index]]
                predicted = names[int(logits[index].argmax())]
                writer.writerow([rows[index], names[labels[index]], predicted, *values])

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Copy bunryu's log lines to train.log while inside, and close the manifest by how it ends."""
        if not self.writes:
            yield
            return
        handler = logging.FileHandler(self.path / "train.log", encoding="utf-8")
        handler.setFormatter(_Masking("%(asctime)s %(levelname)s %(message)s", self._secrets()))
        logger = logging.getLogger("bunryu")
        logger.addHandler(handler)
        try:
            yield
        except (KeyboardInterrupt, Interrupted) as error:
            self.end("interrupted", str(error) or type(error).__name__)
            log.warning("interrupted; to go on: bunryu resume %s", shlex.quote(str(self.path)))
            raise
        except BaseException as error:
            handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (error,), None))
            self.end("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            self.end("finished")
        finally:
            logger.removeHandler(handler)
            handler.close()

    def _secrets(self) -> dict[str, str]:
        """Values of the environment variables that the config names, each with how it is written instead."""
        return secrets_in((self.path / "config.yaml").read_text("utf-8"))

    def _write_manifest(self, facts: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        # git's diff may hold what no override does
        write_atomically(self.path / "manifest.json", _json(mask(facts, self._secrets())))


class _Masking(logging.Formatter):
    """Writes a line without the secrets that may stand in it."""

    def __init__(self, form: str, secrets_: Mapping[str, str]) -> None:
        super().__init__(form)
        self._secrets = secrets_

    def format(self, record: logging.LogRecord) -> str:
        return str(mask(super().format(record), self._secrets))


def kind_of(config: Mapping[str, Any]) -> str:
    """``<corpus>-<model>``: the folder of all runs like this one."""
    return f"{config['corpus']['name']}-{Path(config['model']['name']).name}"


def _new_directory(parent: Path) -> Path:
    while True:
        path = parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(3)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False, indent=2) + "\n"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
