"""A secret from the environment is written nowhere: no byte of a run, no message, no name of a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bunryu import cli
from bunryu.config import targets
from bunryu.config.record import resolved, to_recorded
from bunryu.errors import ConfigError
from bunryu.runs.run import Run
from helpers.composing import composed
from helpers.refusing import error_of, refused
from helpers.sweeping import ledger_in, runs_in
from helpers.tables import write
from helpers.training import QUICK, Train

SECRET = "-".join(["sesame", "f16c"])  # not written out: a manifest keeps the diff of this very file
SPELT = f"{SECRET}'\"\\ 비밀\n{SECRET}\n"  # otherwise in Python, JSON, YAML and URLs
WATCH = """\
import logging
import sys

import pytorch_lightning as pl

EARLY = logging.StreamHandler(sys.stderr)  # as a library makes it when it is imported


class Watch(pl.Callback):
    def __init__(self, word, fails=False):
        self.word, self.fails = word, fails

    def on_fit_start(self, trainer, pl_module):
        assert "sesame" in self.word
        logging.getLogger("bunryu").warning("%s", self.word)
        EARLY.handle(logging.makeLogRecord({"msg": self.word}))
        if self.fails:
            raise RuntimeError({"token": self.word})
"""
MINE = ["+callbacks.mine._target_=my_watch.Watch", "+callbacks.mine.word=x-${oc.env:CANARY}"]


def run_cli(*arguments: str) -> int:
    return cli.run(list(arguments))


def files_with_secret(folder: Path) -> list[str]:
    """Files and folders below a folder that hold the secret, or have it in their names."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if SECRET in path.name or (path.is_file() and SECRET.encode() in path.read_bytes())
    ]


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for outputs; beside it a callback of a user's own that needs the secret."""
    for name in ("here", "site"):
        (tmp_path / name).mkdir()
    (tmp_path / "site/my_watch.py").write_text(WATCH, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv(targets.OWN_PACKAGES, "my_watch")
    monkeypatch.setenv("CANARY", SECRET)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "out"


def test_a_secret_is_in_no_byte_of_a_sweep_and_its_runs(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    named = ["corpus.name=${oc.env:CANARY}", "sweep_name=s-${oc.env:CANARY}", "epochs=1", "limit_rows=20"]
    assert run_cli("train", "-m", *QUICK, *named, f"output_root={out}", "seed=1", *MINE) == 0
    ledger, (run,) = ledger_in(out), map(Run, out.glob("*-tiny/*"))
    log = ledger.log_of(ledger.jobs()[0].identity).read_text("utf-8")
    assert log.count("x-${oc.env:CANARY}\n") == 2  # by our logger and by a library's
    assert run.config["callbacks"]["mine"]["word"] == "x-${oc.env:CANARY}"
    assert resolved(run.config, str(run.path))["callbacks"]["mine"]["word"] == f"x-{SECRET}"
    assert run_cli("evaluate", str(run.path), "--env", "CANARY") == 0
    kinds = {path.suffix for path in run.path.rglob("*")} | {path.name[:6] for path in run.path.rglob("*")}
    assert {".ckpt", ".yaml", ".json", ".log", ".csv", ".html", "events"} <= kinds
    assert files_with_secret(out) == []
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err


def test_a_run_that_fails_by_a_value_writes_only_its_name(out: Path) -> None:
    failing = ["model=pretrained", "model.name=no/${oc.env:CANARY}", "corpus.name=${oc.env:CANARY}"]
    assert run_cli("train", *QUICK, f"output_root={out}", *failing) == 1
    (run,) = map(Run, out.glob("*/*"))
    assert run.manifest["status"] == "failed"
    assert "no/${oc.env:CANARY}" in run.manifest["exit_reason"]
    assert files_with_secret(out) == []


def test_a_traceback_shows_no_secret_however_it_is_spelt(
    out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY", SPELT)
    error = refused(
        RuntimeError, run_cli, "train", *QUICK, f"output_root={out}", *MINE, "+callbacks.mine.fails=true"
    )
    sys.excepthook(RuntimeError, error, error.__traceback__)  # as the interpreter ends with it
    assert run_cli("train", "--cfg", "job", "--resolve", MINE[1], "cache_dir=${oc.env:CANARY}") == 0
    printed = capfd.readouterr()
    assert "RuntimeError: {'token': 'x-${oc.env:CANARY}'}" in printed.err
    assert "cache_dir: ${oc.env:CANARY}" in printed.out
    assert SECRET not in printed.out + printed.err
    assert files_with_secret(out) == []


@pytest.mark.parametrize(
    "written",
    [
        "${oc.env:CANARY}", "${ oc.env : CANARY }", "${oc.env:'CANARY'}", '${oc.env:"CANARY",3}',
        "x/${oc.env:CANARY}/y", "${oc.env:${cache_dir}}", "${oc.env:NOBODY,${oc.env:CANARY}}",
        "${oc.env:NOBODY,'${oc.env:CANARY}'}", "${oc.select:nothing,${oc.env:CANARY}}", "${output_root}",
    ],
)  # fmt: skip
def test_no_error_shows_a_secret_however_it_is_named(written: str) -> None:
    given = ["cache_dir=CANARY", "output_root=${oc.env:CANARY}"]
    value = written if "'" in written else f"'{written}'"
    assert SECRET not in error_of(2, "train", *given, f"epochs={value}")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("key", ["max_seq_length", "monitor", "+trainer.max_time", "hydra.sweeper.strategy"])
def test_no_error_shows_a_secret_wherever_it_stands(key: str) -> None:
    said = error_of(2, "train", "-m", f"{key}=x-${{oc.env:CANARY}}", "seed=1,2")
    assert "${oc.env:CANARY}" in said
    assert SECRET not in said
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "override",
    [
        "corpus.label_names={0: no, 1: '${oc.env:CANARY}'}", "corpus.cleaner.allowed=a-z${oc.env:CANARY}",
        "logger.tensorboard.name=${oc.env:CANARY}", "accelerator.name=${oc.env:CANARY}",
        "output_root=a/${oc.env:CANARY}", "cache_dir=${oc.env:CANARY}",
        "+callbacks.more={_target_: bunryu.training.callbacks.BestCheckpoint, filename: '${oc.env:CANARY}'}",
    ],
)  # fmt: skip
def test_what_a_run_would_hold_is_refused(override: str) -> None:
    assert "this cannot be recorded so" in error_of(2, "train", "corpus/cleaner=kcbert", override)
    assert list(Path.cwd().iterdir()) == []


def test_what_cannot_be_recorded_without_its_value_is_refused_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY", "4711")
    assert run_cli("train", "epochs=${oc.decode:${oc.env:CANARY}}") == 2
    printed = capsys.readouterr()
    assert "this cannot be recorded so\n  where: epochs\n  fix:   epochs=$NAME" in printed.err
    assert "4711" not in printed.out + printed.err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("written", "environment", "value"),
    [
        ("${oc.env:CANARY}", "hush", "hush"),
        ("a ${oc.env:CANARY} b ${oc.env:CANARY}", "hush", "a hush b hush"),
        ("${oc.env:CANARY,else}", None, "else"),
        ("${oc.env:CANARY,'one, two'}", None, "one, two"),
        ("${oc.env:CANARY,null}", None, None),
        ("${oc.env:CANARY,null}", "null", "null"),
        ("${oc.env:CANARY}", "3", "3"),
        ("${oc.env:CANARY}", "", ""),
        ("${oc.env:CANARY}", "${oc.env:HOME}", "${oc.env:HOME}"),
    ],
)
def test_what_is_recorded_gives_the_value_back(
    written: str, environment: str | None, value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CANARY", raising=False)
    if environment is not None:
        monkeypatch.setenv("CANARY", environment)
    cfg = composed()
    cfg.corpus.name = written
    assert cfg.corpus.name == value, "as Hydra has it"
    recorded = to_recorded(cfg)
    assert environment in (None, "", "null") or environment not in json.dumps(recorded["corpus"]["name"])
    run = Run.create(tmp_path, "a-b", recorded, [], [])
    assert resolved(run.config, str(run.path))["corpus"]["name"] == value


def test_a_variable_that_is_not_set_is_named() -> None:
    config: dict[str, Any] = {**to_recorded(composed()), "cache_dir": "${oc.env:NOBODY_SET_THIS}"}
    error = refused(ConfigError, resolved, config, "here")
    assert "the environment variable NOBODY_SET_THIS is not set" in str(error)
    assert error.where == "cache_dir"
    assert set(resolved(config, "here", "corpus", "limit_rows")) == {"corpus", "limit_rows"}  # need none


def test_a_folder_from_the_environment_is_a_place_and_no_secret(
    out: Path, train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    write(out / "t.tsv", *((f"글 {number}", number % 2) for number in range(40)))
    monkeypatch.setenv("DATA", str(out))
    corpus = ["corpus=table", "corpus.train=${oc.env:DATA}/t.tsv", "corpus.validation=0.5", "epochs=1"]
    run = train(*corpus)
    assert run_cli("train", "-m", *QUICK, *corpus, "seed=1", "output_root=${oc.env:DATA}/runs") == 0
    assert len(runs_in(out / "runs")) == 1
    assert str(run.path) in capsys.readouterr().out
    for verb in (["evaluate", "--split", "validation"], ["reproduce", "--dry-run"]):
        assert "its corpus.train asks for" in error_of(2, *verb, run.path)
        assert run_cli(*verb, str(run.path), "--env", "DATA") == 0
    run.record(status="interrupted")
    (run.path / "results.json").unlink()  # what has it is finished
    assert "fix:   --env DATA" in error_of(2, "resume", run.path)
    assert run_cli("resume", str(run.path), "--env", "OTHER", "--env", "DATA") == 0
