"""The command: verbs, exit codes, and what bash offers to complete."""

from __future__ import annotations

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
    assert [f"  {verb:<18} {what}" for verb, what in cli.VERBS.items()] == shown.split("\n\n")[2].splitlines()
    for verb in (*cli.VERBS, *cli.INTERNAL_VERBS):
        assert Path(cli.__file__).parent.joinpath(f"commands/{verb.replace('-', '_')}.py").is_file()


@pytest.mark.parametrize("verb", ["job", "join"])
def test_what_bunryu_itself_starts_runs_though_it_is_not_shown(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"bunryu.commands.{verb}.main", lambda arguments: int(arguments[0]))
    assert cli.run([verb, "7"]) == 7
    assert cli.run(["--help"]) == 0
    assert verb not in capsys.readouterr().out.split()


def test_no_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert "usage: bunryu <verb>" in capsys.readouterr().out


def test_an_unknown_verb_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["trian"]) == 2
    assert capsys.readouterr().err == (
        "bunryu: there is no verb 'trian'; did you mean 'train'? "
        "verbs: train, check, resume, reproduce, evaluate, report, predict, serve, export, "
        "import-checkpoint\n"
    )


@pytest.mark.parametrize("command", [[BUNRYU], [sys.executable, "-m", "bunryu"]])
def test_the_exit_code_reaches_the_shell(command: list[str]) -> None:
    done = subprocess.run([*command, "train", "epochs=0"], capture_output=True, text=True, check=False)
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


OFFERED = {
    "bunryu tr": ["train"],
    "bunryu e": ["evaluate", "export"],
    "bunryu j": [],
    "bunryu train mod": ["model=", "model."],
    "bunryu train model=k": ["model=kcbert_base", "model=kcbert_large"],
    "bunryu train optimizer.weight": ["optimizer.weight_decay="],
    "bunryu train model=tiny experiment=": ["experiment=nsmc_kcbert", "experiment=nsmc_small"],
    "bunryu train max_seq": ["max_seq_length="],
}


@pytest.mark.parametrize("line", OFFERED)
def test_verbs_groups_options_and_keys_are_completed(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert cli.run(["-sc", "query=bash"]) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(OFFERED[line])


def test_bash_completes_by_the_script_that_is_installed(tmp_path: Path) -> None:
    script = f"""
export PATH={BUNRYU.parent}:$PATH
eval "$(bunryu train -sc install=bash)"
COMP_LINE="bunryu train model=k"
COMP_WORDS=($COMP_LINE)
COMP_POINT=${{#COMP_LINE}}
COMP_CWORD=2
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert sorted(done.stdout.split()) == OFFERED["bunryu train model=k"]


def test_a_closed_standard_input_is_an_empty_one() -> None:
    # else the next file to be opened would be the input of the processes that several devices need
    code = "import os, sys\nfrom bunryu import cli\nsys.argv = ['bunryu', '--version']\n"
    code += "try:\n    cli.main()\nexcept SystemExit:\n    null = os.stat(os.devnull)\n"
    code += "    print(os.path.samestat(os.fstat(0), null))"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["True"]
