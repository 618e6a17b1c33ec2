"""The command: verbs, exit codes, and what bash offers to complete."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.errors import ConfigError, DownloadError

BUNRYU = Path(sys.executable).with_name("bunryu")


def test_help_lists_every_verb_and_every_verb_has_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb, what in cli.VERBS.items():
        assert f"  {verb:<18} {what}\n" in shown
        assert Path(cli.__file__).with_name(f"{verb.replace('-', '_')}.py").is_file()


def test_no_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert "usage: bunryu <verb>" in capsys.readouterr().out


def test_an_unknown_verb_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["trian"]) == 2
    assert capsys.readouterr().err == (
        "bunryu: there is no verb 'trian'; did you mean 'train'? "
        "verbs: train, check, resume, reproduce, evaluate, report, predict, serve, export, "
        "import-checkpoint, job, join\n"
    )


def test_the_exit_code_reaches_the_shell() -> None:
    done = subprocess.run([BUNRYU, "train", "epochs=0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "bunryu train: epochs=0 is out of range\n  where: epochs\n  fix:   a value at least 1\n"
    )
    assert done.stdout == ""


@pytest.mark.parametrize(("error", "code"), [(ConfigError("x"), 2), (DownloadError("x"), 1)])
def test_errors_become_exit_codes(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: list[str]) -> int:
        raise error

    monkeypatch.setattr("bunryu.commands.train.main", fail)
    assert cli.run(["train"]) == code
    assert capsys.readouterr().err == "bunryu train: x\n"


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("bunryu.commands.train.main", interrupted)
    assert cli.run(["train"]) == 130


def completions(line: str, tmp_path: Path) -> list[str]:
    """What bash offers after ``line``, through the script that ``-sc install=bash`` prints."""
    script = f"""
export PATH={BUNRYU.parent}:$PATH
eval "$(bunryu train -sc install=bash)"
COMP_LINE={line!r}
COMP_WORDS=($COMP_LINE)
COMP_POINT=${{#COMP_LINE}}
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
[[ "$COMP_LINE" == *" " ]] && COMP_CWORD=$(( COMP_CWORD + 1 ))
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ}
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("bunryu tr", ["train"]),
        ("bunryu e", ["evaluate", "export"]),
        ("bunryu train mod", ["model=", "model."]),
        ("bunryu train model=k", ["model=kcbert_base", "model=kcbert_large"]),
        ("bunryu train optimizer.weight", ["optimizer.weight_decay="]),
        ("bunryu train model=tiny experiment=", ["experiment=nsmc_kcbert", "experiment=nsmc_small"]),
        ("bunryu train max_seq", ["max_seq_length="]),
    ],
)
def test_bash_completes_verbs_groups_options_and_keys(line: str, offered: list[str], tmp_path: Path) -> None:
    assert sorted(completions(line, tmp_path)) == sorted(offered)


def test_a_closed_standard_input_is_an_empty_one() -> None:
    # else the next file to be opened would be the input of the processes that several devices need
    code = "import os, sys\nfrom bunryu import cli\nsys.argv = ['bunryu', '--version']\n"
    code += "try:\n    cli.main()\nexcept SystemExit:\n    null = os.stat(os.devnull)\n"
    code += "    print(os.path.samestat(os.fstat(0), null))"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["True"]
