"""Nothing is written or deleted through what leads out of a run: links, recorded paths, pipes."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from bunryu import cli
from bunryu.config.instantiate import check_targets
from bunryu.errors import ConfigError, ModelError
from bunryu.runs.run import Run
from bunryu.sweeps.ledger import Ledger
from bunryu.system.files import refuse_links
from bunryu.training.checkpoints import write_checkpoint
from bunryu.training.run_io import AtomicCheckpointIO
from helpers.refusing import error_of, refused
from helpers.training import Train

FOLDERS = ["checkpoints", "predictions", "model", "tensorboard", "evaluations", "exports", "evaluations/test"]
FILES = ["train.log", "metrics.csv", "results.json", "manifest.json", "config.yaml", ".lock",
         "model/model.safetensors", "model/tokenizer.json", "predictions/test.csv",
         "checkpoints/last.ckpt", "checkpoints/.last.ckpt-new"]  # fmt: skip


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """The trained run in another place, interrupted, so that it can be resumed."""
    copied = Run(Path(shutil.copytree(trained.path, tmp_path / "foreign" / trained.path.name)))
    copied.end("interrupted")
    (copied.path / "results.json").unlink()
    for name in ("evaluations/test", "exports/onnx"):
        (copied.path / name).mkdir(parents=True)
    return copied


def contents(folder: Path) -> dict[str, bytes | None]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}


def led_out(run: Run, name: str, outside: Path) -> Path:
    """Move an entry of the run outside and put a link in its place."""
    entry = run.path / name
    outside.mkdir()
    if not entry.exists():
        (outside / entry.name).write_text("{}", "utf-8")
    else:
        shutil.move(entry, outside / entry.name)
    entry.symlink_to(outside / entry.name)
    return outside


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_resume_writes_nothing_through_a_link(run: Run, name: str, tmp_path: Path) -> None:
    outside = led_out(run, name, tmp_path / "outside")
    before = contents(outside)
    said = error_of(1, "resume", run.path)
    assert said.startswith(f"bunryu resume: a link to {outside}/{Path(name).name}, and nothing is written")
    assert f"  where: {run.path}/{name}\n" in said
    assert contents(outside) == before


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("evaluate", "evaluations"),
        ("evaluate", "evaluations/mine"),
        ("export", "exports"),
        ("export", "exports/onnx"),
    ],
)
@pytest.mark.parametrize("alone", [False, True], ids=["run", "model folder"])
def test_evaluate_and_export_write_nothing_through_a_link(
    run: Run, verb: str, name: str, alone: bool, tmp_path: Path
) -> None:
    folder = run
    arguments = [] if verb == "export" else ["--name", "mine"]
    if alone:
        folder = Run(Path(shutil.copytree(run.path / "model", tmp_path / "alone")))
        (folder.path / name).mkdir(parents=True)
        (tmp_path / "t.csv").write_text("sentence,label\n영화,긍정\n", "utf-8")
        arguments += ["--data", str(tmp_path / "t.csv")] if verb == "evaluate" else []
    outside = led_out(folder, name, tmp_path / "outside")
    before = contents(outside)
    assert f"  where: {folder.path}/{name}\n" in error_of(1, verb, folder.path, *arguments)
    assert contents(outside) == before


def test_links_that_lead_nowhere_and_pipes_are_refused_and_links_within_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    (folder / "a").mkdir(parents=True)
    (folder / "a/file").touch()
    (folder / "b").symlink_to("a/file")
    (tmp_path / "reached").symlink_to(folder)
    refuse_links(tmp_path / "reached")
    for make, what in (
        (lambda path: path.symlink_to("../../new"), "a link to "),
        (lambda path: path.symlink_to("/dev/null"), "a link to /dev/null"),
        (os.mkfifo, "neither file nor folder"),
    ):
        make(folder / "a/c")
        found = refused(ModelError, refuse_links, tmp_path / "reached", "a")
        assert found.what.startswith(what)
        assert (found.where, found.fix.split(",")[0]) == (f"{folder}/a/c", f"rm {folder}/a/c")
        (folder / "a/c").unlink()
    refuse_links(folder, "not there")


def test_a_run_that_is_reached_through_a_link_goes_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(run.path.parent)
    assert cli.run(["resume", str(tmp_path / "here" / run.path.name)]) == 0
    assert run.manifest["status"] == "finished"
    assert (run.path / "checkpoints/best.ckpt").stat().st_nlink == 1


def test_a_sweep_s_records_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "sweep/jobs").symlink_to(tmp_path / "outside")
    refused(ModelError, Ledger.create, tmp_path / "sweep", {})
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(("name", "score"), [("../../../notes.txt", 9.0), ("{}/notes.txt", -9.0)])
def test_names_in_a_checkpoint_are_no_paths(run: Run, name: str, score: float, tmp_path: Path) -> None:
    notes, path = tmp_path / "notes.txt", run.path / "checkpoints/last.ckpt"
    notes.write_text("mine", "utf-8")
    content = torch.load(path, weights_only=True)
    (state,) = [state for state in content["callbacks"].values() if "best_k_models" in state]
    name, value = name.format(tmp_path), torch.tensor(score)  # a loss to be beaten, or that never is
    state |= {"best_k_models": {name: value}, "kth_value": value, "best_model_score": value}
    state |= dict.fromkeys(("kth_best_model_path", "best_model_path", "last_model_path"), name)
    write_checkpoint(content, path)
    config = run.config
    config["trainer"]["max_epochs"] = 3
    (run.path / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    assert cli.run(["resume", "--despite-changes", str(run.path)]) == 0
    assert notes.read_text("utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "notes.txt"]


def test_no_callback_saves_or_removes_a_checkpoint_outside_the_run(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/elsewhere").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    files = AtomicCheckpointIO(tmp_path / "run")
    for name in ("notes.txt", "run/checkpoints/../../notes.txt", "run/elsewhere/notes.txt"):
        for action in (files.remove_checkpoint, partial(files.save_checkpoint, {})):
            found = refused(ModelError, action, tmp_path / name)
            assert found.what == "a checkpoint's path leads out of the run directory"
    assert (tmp_path / "notes.txt").read_text("utf-8") == "mine"
    files.save_checkpoint({}, tmp_path / "run/checkpoints/x.ckpt")
    files.remove_checkpoint(tmp_path / "run/checkpoints/x.ckpt")
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


LIGHTNING = "pytorch_lightning"


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        *(("callbacks.ModelCheckpoint", "dirpath", value) for value in ("/x", "here", "file:///x")),
        *(("callbacks.ModelCheckpoint", "filename", value) for value in ("/x", "../x", "a/../../x", "~/x")),
        *(("loggers.CSVLogger", "name", value) for value in ("/x", "..", "a/../..", "memory://x")),
        ("loggers.CSVLogger", "version", "../.."),
        ("loggers.CSVLogger", "save_dir", "/x"),
        *(("loggers.TensorBoardLogger", "sub_dir", value) for value in ("/x", "$HOME", "../../../x")),
        ("loggers.TensorBoardLogger", "save_dir", "x"),
        ("loggers.MLFlowLogger", "tracking_uri", "file:///x"),
        ("loggers.MLFlowLogger", "artifact_location", "/x"),
        ("loggers.WandbLogger", "dir", "/x"),
        *(("profilers.SimpleProfiler", key, "/x") for key in ("dirpath", "filename")),
        *(("profilers.AdvancedProfiler", key, "../x") for key in ("dirpath", "filename")),
        *(("profilers.PyTorchProfiler", key, "../x") for key in ("dirpath", "filename")),
    ],
)  # fmt: skip
def test_lightning_s_parts_write_within_the_run_or_are_refused(target: str, key: str, value: str) -> None:
    node = {"_target_": f"{LIGHTNING}.{target}", "_partial_": True, key: value}
    found = refused(ConfigError, check_targets, [node], "here")
    assert (found.where, found.fix) == (f"here.0.{key}", f"leave '{key}' out")
    del node[key]
    check_targets([node])


def test_a_csv_logger_does_not_replace_metrics_csv(train: Train, tmp_path: Path) -> None:
    node = {"_target_": f"{LIGHTNING}.loggers.CSVLogger", "_partial_": True}
    for name in ({"name": ""}, {"name": None}, {"name": "."}, {"name": "./"}):
        refused(ConfigError, check_targets, {**node, **name, "version": ""})
    for name in (
        {},
        {"name": "csv", "version": ""},
        {"name": "", "version": 0},
        {"name": "", "version": "a"},
    ):
        check_targets({**node, **name})
    typed = [f"+logger.csv._target_={LIGHTNING}.loggers.CSVLogger", "+logger.csv._partial_=true"]
    said = error_of(
        2, "train", f"output_root={tmp_path}", *typed, "+logger.csv.name=''", "+logger.csv.version=''"
    )
    assert "  where: logger.csv.version\n" in said
    assert list(tmp_path.iterdir()) == []
    run = train("epochs=1", *typed, "+logger.csv.name=csv", "+logger.csv.version=''")
    assert (run.path / "csv/metrics.csv").is_file()
    assert ("val/loss" in {name for _, _, name, _ in run.metrics}) and not (tmp_path / "csv").exists()
