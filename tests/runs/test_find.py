"""Every verb that needs a run whole refuses one that another version of bunryu wrote, with the way out."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.sweeps.job import run_job
from bunryu.sweeps.ledger import Ledger
from bunryu.system.signals import Interrupted
from bunryu.training import recipe

OLD = "the run was made by bunryu before 0.1 (run directory schema 1)\n"
VERBS = ["evaluate", "predict", "serve", "export", "resume", "reproduce", "join"]


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.path, tmp_path / "sample-tiny" / trained.path.name))


def schema(run: Path, number: int) -> None:
    path = run / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "schema": number}), "utf-8")


def arguments(verb: str, run: Path) -> list[str]:
    beside = run.parent / "in.jsonl"
    beside.write_text('{"text": "재미있다"}', "utf-8")
    more = {"predict": [str(beside), "-o", f"{run.parent}/out.csv"], "export": ["--format", "onnx"]}
    return [verb, str(run), *more.get(verb, [])]


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_of_another_version_is_refused(
    verb: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bunryu.commands.join.stop_with_input", lambda: None)
    for number, said in ((1, OLD), (99, "the run was made by a later bunryu\n")):
        schema(run, number)
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        assert cli.run(arguments(verb, run)) == 1
        assert f"bunryu {verb}: {said}  where: {run}\n  fix: " in capsys.readouterr().err
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_sweep_s_job_does_not_go_on_with_one(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(run: Run, **_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(recipe, "execute", interrupted)
    ledger = Ledger.create(tmp_path / "sweeps" / "s", {"swept": [], "monitor": "min val/loss"})
    ledger.add({"aaa": ([], {**trained.config, "output_root": str(tmp_path)})})
    assert run_job(ledger, "aaa") == 143
    (run,) = tmp_path.glob("sample-tiny/*")
    schema(run, 1)
    assert run_job(ledger, "aaa") == 1
    assert OLD in capsys.readouterr().err
    assert [*tmp_path.glob("sample-tiny/*")] == [run]


def test_its_model_folder_works_once_it_is_copied_out(run: Path, tmp_path: Path) -> None:
    schema(run, 1)
    copy = Path(shutil.copytree(run / "model", tmp_path / "copied"))
    assert cli.run(arguments("predict", copy)) == 0
    assert cli.run(arguments("predict", run / "model")) == 1
