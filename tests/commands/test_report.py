from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bunryu.commands import report
from helpers.comparing import lr_runs
from helpers.refusing import error_of


def test_a_folder_gets_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lr_runs(tmp_path / "outputs", {0.1: [0.30, 0.32, 0.31, 0.33], 0.2: [0.50, 0.53, 0.50, 0.52]})
    folder = tmp_path / "a" / "b"
    assert report.main([str(tmp_path / "outputs"), "-o", str(folder)]) == 0
    files = ["report.csv", "report.html", "report.md", "report.tex", "winner.yaml"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert yaml.safe_load((folder / "winner.yaml").read_bytes()) == {"seed": 1, "optimizer": {"lr": 0.1}}
    assert str(tmp_path) not in (folder / "report.html").read_text("utf-8")
    assert "Yes: the best (optimizer.lr=0.1)" in " ".join(capsys.readouterr().out.split())
    said = error_of(1, "report", tmp_path, "-o", folder / "report.csv" / "below")
    assert f"  where: {folder}/report.csv/below\n" in said
