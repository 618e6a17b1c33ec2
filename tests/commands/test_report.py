from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from bunryu import cli
from bunryu.commands import report
from bunryu.errors import ConfigError
from helpers.comparing import lr_runs, made_run
from helpers.refusing import error_of


def test_a_folder_gets_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lr_runs(tmp_path / "outputs", {0.1: [0.30, 0.32, 0.31, 0.33], 0.2: [0.50, 0.53, 0.50, 0.52]})
    folder = tmp_path / "a" / "b"
    assert report.main([str(tmp_path / "outputs"), "-o", str(folder)]) == 0
    files = ["experiment", "report.csv", "report.html", "report.md", "report.tex"]
    assert sorted(path.name for path in folder.iterdir()) == files
    winner = yaml.safe_load((folder / "experiment" / "winner.yaml").read_bytes())
    assert winner == {"seed": 1, "optimizer": {"lr": 0.1}}
    assert str(tmp_path) not in (folder / "report.html").read_text("utf-8")
    assert "Yes: the best (optimizer.lr=0.1)" in " ".join(capsys.readouterr().out.split())
    said = error_of(1, "report", tmp_path, "-o", folder / "report.csv" / "below")
    assert f"  where: {folder}/report.csv/below\n" in said


def test_the_winner_is_composed_by_the_command_that_is_printed_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, file = tmp_path / "runs", tmp_path / "rows.csv"
    file.write_text("text,label\n", "utf-8")
    typed = ["corpus=table", "corpus.name=rows", "corpus.train=rows.csv", "corpus.validation=test"]
    made_run(runs, "run", 0.5, typed, corpus={"name": "rows", "train": str(file), "validation": "test"})
    monkeypatch.chdir(tmp_path)
    assert report.main(["runs", "-o", "my 보고서, (1)"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (command,) = re.findall("^winner  bunryu (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert cli.run([*shlex.split(command), "--cfg", "job"]) == 0
    composed = yaml.safe_load(capsys.readouterr().out)["corpus"]
    assert [composed[key] for key in ("name", "train", "validation")] == ["rows", str(file), "test"]


def test_a_report_replaces_a_report_and_no_other_file_of_its_names(tmp_path: Path) -> None:
    lr_runs(tmp_path / "outputs", {0.1: [0.30, 0.32], 0.2: [0.50, 0.53]})
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/report.tex").write_text("mine", "utf-8")
    with pytest.raises(ConfigError, match=r"report.tex would be written over"):
        report.main([str(tmp_path / "outputs"), "-o", str(tmp_path / "paper")])
    assert [path.name for path in (tmp_path / "paper").iterdir()] == ["report.tex"]
    assert [report.main([str(tmp_path / "outputs"), "-o", str(tmp_path / "new")]) for _ in range(2)] == [0, 0]
