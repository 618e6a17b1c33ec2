from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bunryu.commands import report
from bunryu.errors import ConfigError
from helpers.comparing import lr_runs


def test_a_folder_gets_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lr_runs(tmp_path / "outputs", {0.1: [0.30, 0.32, 0.31, 0.33], 0.2: [0.50, 0.53, 0.50, 0.52]})
    folder = tmp_path / "a" / "b"
    assert report.main([str(tmp_path / "outputs"), "-o", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.csv", "report.html", "report.md", "report.tex", "winner.yaml",
    ]  # fmt: skip
    winner = yaml.safe_load((folder / "winner.yaml").read_text("utf-8"))
    assert winner == {"seed": 1, "optimizer": {"lr": 0.1}}
    assert str(tmp_path) not in (folder / "report.html").read_text("utf-8")
    assert "Yes: the best (optimizer.lr=0.1)" in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.3]})
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigError, match="cannot write"):
        report.main([str(tmp_path), "-o", str(tmp_path / "file" / "below")])


def test_help_and_mistakes_load_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from bunryu.commands.report import main\n"
        "from bunryu.errors import ConfigError\n"
        "for arguments in (['--help'], [], ['nowhere'], ['--metrc', 'x', '.']):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit as end:\n"
        "        print('CODE', end.code)\n"
        "    except ConfigError as error:\n"
        "        print('CODE', error.exit_code)\n"
        "print('LOADED', *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    *lines, loaded = done.stdout.splitlines()
    assert [line for line in lines if "CODE" in line] == ["CODE 0", "CODE 2", "CODE 2", "CODE 2"]
    heavy = {"torch", "hydra", "omegaconf", "numpy", "scipy", "rich", "jinja2"}
    assert heavy & set(loaded.split()) == set()
