"""The run directory by itself."""

from __future__ import annotations

import csv
import logging
import subprocess
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bunryu.runs import provenance
from bunryu.runs import run as run_module
from bunryu.runs.recording import recording
from bunryu.runs.run import Run
from bunryu.system import secrets
from bunryu.system.files import bunryu_error_of
from helpers.comparing import RECORDED
from helpers.refusing import refused

CONFIG = {**RECORDED, "seed": 7, "text": "한글"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "sample-tiny", CONFIG, ["bunryu"], ["seed=7"])


def test_a_new_run_is_running_and_has_its_config(run: Run) -> None:
    assert (run.manifest["status"], run.manifest["schema"]) == ("running", 2)
    assert run.config == CONFIG
    assert run.config is run.config  # its YAML is parsed once
    assert "한글" in (run.path / "config.yaml").read_text("utf-8")
    assert (run.path / "metrics.csv").read_text("utf-8") == "epoch,step,name,value\n"
    assert run.manifest["versions"] == provenance.versions()


def test_a_name_that_is_taken_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Stopped:
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    drawn = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(run_module, "datetime", Stopped)
    monkeypatch.setattr(run_module, "secrets", SimpleNamespace(token_hex=lambda _: next(drawn)))
    names = [Run.create(tmp_path, "a-b", {**CONFIG, "seed": seed}, [], []).path.name for seed in (1, 2)]
    assert names == ["2026-01-02_03-04-05-aaaaaa", "2026-01-02_03-04-05-bbbbbb"]
    assert Run(tmp_path / "a-b" / names[0]).config["seed"] == 1


def test_the_kind_becomes_one_safe_folder_name_or_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "../my corpus/x-모델", {"seed": 1}, [], [])
    assert run.path.parent == tmp_path / "..-my-corpus-x-모델"
    (tmp_path / "file").write_text("")
    told = bunryu_error_of(refused(OSError, Run.create, tmp_path / "file", "a-b", {"seed": 1}, [], []))
    assert told is not None
    assert (told.what, told.where) == (
        "it cannot be written or read: Not a directory",
        f"{tmp_path}/file/a-b",
    )
    assert told.fix.startswith("another folder: output_root=<folder>")


def test_metrics_are_appended_and_read_back_to_the_bit(run: Run) -> None:
    values = [0.1 + 0.2, 1e-300, float(np.float32(1) / np.float32(3)), 5.0]
    for step, value in enumerate(values):
        run.log_metrics(0, step, {"train/loss": value})
    assert run.metrics == [(0, step, "train/loss", value) for step, value in enumerate(values)]


def test_predictions_are_in_row_order_and_read_back_to_the_bit(run: Run) -> None:
    logits = np.array([[0.1, 0.3], [2.5, -1.25], [0.7, 0.6]], dtype=np.float32)
    run.write_predictions("test", [9, 4, 6], [1, 0, 1], logits, ["나쁨, 아주", "좋음"])
    rows = list(csv.reader((run.path / "predictions/test.csv").read_text("utf-8").splitlines()))
    assert rows[0] == ["row", "label", "prediction", "logit:나쁨, 아주", "logit:좋음"]
    bad, good = "나쁨, 아주", "좋음"
    assert [row[:3] for row in rows[1:]] == [["4", bad, bad], ["6", good, bad], ["9", good, good]]
    read = np.array([[float(v) for v in row[3:]] for row in rows[1:]], dtype=np.float32)
    assert np.array_equal(read, logits[[1, 2, 0]])


def test_how_it_ends_is_recorded(run: Run) -> None:
    with recording(run):
        logging.getLogger("bunryu").warning("a line")
    assert run.manifest["status"] == "finished"
    assert "WARNING a line" in (run.path / "train.log").read_text("utf-8")
    with pytest.raises(ValueError, match="broken"), recording(run):
        raise ValueError("broken")
    assert (run.manifest["status"], run.manifest["exit_reason"]) == ("failed", "ValueError: broken")
    assert "ERROR broken" in (run.path / "train.log").read_text("utf-8")
    with pytest.raises(KeyboardInterrupt), recording(run):
        raise KeyboardInterrupt
    assert run.manifest["status"] == "interrupted"


def test_a_failed_write_leaves_the_old_content_and_no_rest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in run.path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.record(more="facts")
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before


def test_the_checkout_and_the_sources_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    module = tmp_path / "package/code.py"
    module.write_text("x = 1\n")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init"], ["add", "-A"], ["commit", "-m", "first"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(provenance, "PACKAGE", module.parent)
    clean, before = provenance.git_state(), provenance.sources_hash()
    module.write_text("x = 2\n")
    dirty = provenance.git_state()
    assert provenance.sources_hash() != before
    assert clean is not None and dirty is not None
    assert (clean["dirty"], clean["diff"], dirty["dirty"]) == (False, "", True)
    assert "+x = 2" in dirty["diff"]
    assert clean["commit"] == dirty["commit"]


def test_git_starts_no_diff_converter_or_monitor_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, file = tmp_path / "canary", tmp_path / "a.txt"
    file.write_text("a\n")
    (tmp_path / ".gitattributes").write_text("*.txt diff=x\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "a"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    for key in ("core.fsmonitor", "diff.external", "diff.x.textconv", "diff.x.command"):
        subprocess.run(["git", "config", key, f"touch {canary}; true"], cwd=tmp_path, check=True)
    file.write_text("b\n")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    found = provenance.git_state()
    assert found is not None
    assert "+b" in found["diff"]
    assert not canary.exists()


def test_a_secret_in_the_uncommitted_diff_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush-4711")
    secrets.remember("TOKEN")
    run = Run.create(tmp_path, "a-b", {"seed": 7, "token": "${oc.env:TOKEN}"}, [], [])
    run.record(git={"commit": "", "diff": "+token = hush-4711"}, count=[4711])
    manifest = run.manifest
    assert (manifest["git"]["diff"], manifest["count"]) == ("+token = ${oc.env:TOKEN}", [4711])
