"""A disk that is full, read-only or gone: each verb says where and what to do, without a traceback."""

from __future__ import annotations

import errno
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.sweeps import job as sweep_job
from bunryu.sweeps.ledger import Ledger
from bunryu.system.files import bunryu_error_of, disk_errors_at
from bunryu.training.callbacks import LastCheckpoint
from helpers.refusing import error_of, refused
from helpers.training import QUICK


@contextmanager
def full(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes inside."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.path, tmp_path / "outputs/sample-tiny" / trained.path.name))


VERBS = {
    "train": ["output_root={out}", *QUICK],
    "evaluate": ["{run}"],
    "predict": ["{run}", "{table}", "--text-column", "text", "-o", "{out}.csv"],
    "export": ["{run}"],
    "reproduce": ["{run}"],
    "report": ["{run}", "-o", "{out}"],
    "import-checkpoint": ["{run}/checkpoints/best.ckpt", "--model", "{run}/model", "--output", "{out}"],
}
# What it stops at where no file may have more than 1,000 bytes, and where models do not fit.
SMALL = {"train": "config.yaml", "evaluate": "evaluations/test/predictions.csv", "predict": "out.csv",
         "export": "exports/onnx", "reproduce": "config.yaml", "report": "out/report.html",
         "import-checkpoint": "out"}  # fmt: skip
LARGE = {"train": "checkpoints/best.ckpt", "import-checkpoint": "out"}


@pytest.mark.parametrize(
    ("verb", "most", "where"),
    [*((verb, 1000, where) for verb, where in SMALL.items()),
     *((verb, 100_000, where) for verb, where in LARGE.items())],
)  # fmt: skip
def test_a_full_disk_is_told_with_path_and_bytes(
    verb: str, most: int, where: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(  # PyTorch's takes seconds
        "bunryu.inference.onnx_export._write_graph", lambda *given: given[2].write_bytes(bytes(2000))
    )
    (tmp_path / "t.csv").write_text("text\n" + "영화\n" * 100, "utf-8")
    names = {"run": run, "out": tmp_path / "out", "table": tmp_path / "t.csv"}
    arguments = [argument.format(**names) for argument in VERBS[verb]]
    with full(most):
        said = error_of(1, verb, *arguments)
    told = said[said.index(f"bunryu {verb}: the disk is full (") :].splitlines()
    assert told[0].endswith(" bytes are free): File too large")
    assert told[1].startswith(f"  where: {tmp_path}/")
    assert told[1].endswith(f"/{where}")
    assert (
        told[2]
        == "  fix:   make room; then the same command again, or bunryu resume for a run that had begun"
    )
    assert "Traceback" not in said
    left = [path for path in tmp_path.rglob(".*") if path.name != ".lock"]
    assert left == [], "temporary files"


def test_standard_output_may_be_full(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    assert error_of(1, "report", run).startswith("bunryu report: the disk is full: No space left on device\n")


@pytest.mark.parametrize(("what", "epoch"), [("run", 1), ("checkpoints", 1), ("output_root", 2)])
def test_what_vanishes_while_a_run_trains_is_named(
    what: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = LastCheckpoint.on_train_epoch_end

    def save_and_lose(self: LastCheckpoint, trainer: Any, module: Any) -> None:
        saved(self, trainer, module)
        if trainer.current_epoch + 1 == epoch:
            run = Path(trainer.default_root_dir)
            shutil.rmtree(
                {"run": run, "checkpoints": run / "checkpoints", "output_root": tmp_path / "o"}[what]
            )

    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", save_and_lose)
    said = error_of(1, "train", f"output_root={tmp_path}/o", *QUICK)
    gone = "it is not there, or not any more: No such file or directory", "metrics.csv"
    told, where = gone if what == "run" else ("the best checkpoint is gone", "best.ckpt")
    assert f"bunryu train: {told}\n  where: {tmp_path}/o/" in said
    assert f"{where}\n  fix: " in said
    assert "Traceback" not in said
    if what == "checkpoints":
        (manifest,) = tmp_path.glob("o/*/*/manifest.json")
        assert Run(manifest.parent).manifest["status"] == "failed"


@pytest.mark.parametrize("verb", ["evaluate", "export"])
def test_a_run_that_can_only_be_read_is_evaluated_and_exported_elsewhere(
    verb: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **keywords: Any) -> None:
        if self.is_relative_to(run):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        made(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(
        "bunryu.inference.onnx_export.export_onnx", lambda *given: (given[2] / "graph").write_text("x")
    )
    said = error_of(1, verb, run)
    assert said.startswith(
        f"bunryu {verb}: it cannot be written or read: Read-only file system\n  where: {run}/"
    )
    assert said.endswith("or --output FOLDER\n")
    assert cli.run([verb, str(run), "--output", str(tmp_path / "out")]) == 0
    assert error_of(2, verb, run, "--output", tmp_path / "out").splitlines()[0].endswith("something already")
    assert verb == "export" or (tmp_path / "out/evaluation.json").is_file()


def test_an_error_that_is_no_disk_s_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    for error in (OSError("a bug"), OSError(errno.EBADF, "Bad file descriptor"), FileNotFoundError(2, "x")):

        def fails(*_: object, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr("bunryu.commands.report.collect", fails)
        refused(type(error), cli.run, ["report", str(run)])
        assert bunryu_error_of(error) is None


def test_what_libraries_wrap_is_named_and_what_they_refuse_is_not(tmp_path: Path) -> None:
    def fails(error: Exception) -> None:
        with disk_errors_at(tmp_path / "x"):
            raise error

    found = refused(OSError, fails, Exception("I/O error: No space left on device (os error 28)"))
    assert (found.errno, found.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    assert refused(OSError, fails, OSError(errno.ENOENT, "gone", "there")).filename == "there"
    refused(ValueError, fails, ValueError("no"))


# Of a sweep


@pytest.fixture
def ledger(trained: Run, tmp_path: Path) -> Ledger:
    facts = {"swept": ["seed"], "monitor": "min val/loss", "strategy": "grid"}
    made = Ledger.create(tmp_path / "outputs/sweeps/s", facts)
    made.add({"aaa": (["seed=7"], {**trained.config, "output_root": str(tmp_path / "outputs")})})
    return made


def test_a_job_whose_record_cannot_be_begun_is_still_to_do(ledger: Ledger) -> None:
    with full(20):
        assert sweep_job.run_job(ledger, "aaa") == 1
    assert (ledger.job("aaa").status, ledger.job("aaa").attempt) == ("waiting", 0)


@pytest.mark.parametrize(("unwritten", "keep"), [("the run's end", "none"), ("the attempt's end", "all")])
def test_a_job_that_was_trained_when_the_disk_was_full_is_not_trained_again(
    unwritten: str, keep: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.add({"bbb": ([], {**ledger.job("aaa").config, "keep_checkpoints": keep})})
    name = "bunryu.runs.run.Run.end" if unwritten == "the run's end" else "bunryu.sweeps.attempts.Attempt.end"

    def refuses(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "record")

    with monkeypatch.context() as patch:
        patch.setattr(name, lambda *_, **__: refuses())
        if unwritten == "the run's end":
            patch.setattr("bunryu.sweeps.attempts.Attempt.end", lambda *_, **__: refuses())
        assert sweep_job.run_job(ledger, "bbb") == 1
        patch.setattr("bunryu.sweeps.ledger.alive", lambda *_: False)
        job = ledger.job("bbb")
        assert job.status == "dead"
        assert job.run is not None
        before = {
            path: path.stat().st_mtime_ns for path in job.run.rglob("*.*") if path.name != "manifest.json"
        }
    monkeypatch.setattr("bunryu.sweeps.ledger.alive", lambda *_: False)
    monkeypatch.setattr("bunryu.training.recipe.execute", refuses)
    assert sweep_job.run_job(ledger, "bbb") == 0
    done = ledger.job("bbb")
    assert (done.status, done.run) == ("finished", job.run)
    assert done.metrics["val/loss"] == Run(job.run).results["val/loss"]
    assert Run(job.run).manifest["status"] == "finished"
    assert {path: path.stat().st_mtime_ns for path in before} == before
