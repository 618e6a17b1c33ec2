"""The documentation: its commands run, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import argparse
import ast
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.preflight.jobs import composed_jobs
from bunryu.preflight.report import Report
from bunryu.runs.run import Run

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
PAGES = ["README.md", *DOCS, "README.ko.md", "CONTRIBUTING.md"]

# What the blocks that are not run begin with, and the reason that their page gives.
NOT_RUN = {
    "git clone <this repository> bunryu": "needs the repository's address",
    "pip install -c constraints.txt -e .": "changes the environment it is typed in",
    "pip install -e .": "changes the environment it is typed in",
    'eval "$(bunryu train -sc install=bash)"': "changes the shell it is typed in",
    "bunryu train experiment=nsmc_small": "downloads NSMC and trains for 20 minutes",
    "bunryu train experiment=nsmc_kcbert": "downloads 440 MB and wants a GPU",
    "bunryu train accelerator=cpu accelerator.devices=2 ": "two processes, tested on their own",
    "torchrun --nproc-per-node 2 -m bunryu train accelerator=cpu ": "the same run as above",
    "pip install -c constraints-tpu.txt -e '.[tpu]'": "needs a TPU",
    "bunryu train -m experiment=nsmc_kcbert ": "needs a Slurm cluster",
    "bunryu train -m experiment=nsmc_small ": "trains for an hour",
    "bunryu resume $RUN": "needs a run that was stopped",
    "bunryu predict $RUN ": "needs a file",
    "bunryu serve $RUN": "serves until it is stopped",
    "tensorboard --logdir outputs": "serves until it is stopped",
    "pip install -c constraints.txt -e '.[onnx]'": "needs the extra onnx",
    "bunryu import-checkpoint ": "needs a checkpoint of the tutorial's",
    "make test": "this is the test",
}

TUTORIAL_ARGUMENTS = (
    "pretrained_model_name downstream_task_name downstream_corpus_name downstream_corpus_root_dir "
    "downstream_model_dir max_seq_length save_top_k monitor seed overwrite_cache force_download "
    "test_mode learning_rate epochs batch_size cpu_workers fp16 tpu_cores "
    "downstream_model_checkpoint_fpath"
)


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def commands_of(script: str) -> list[str]:
    """The commands of a block, without comments and line breaks; one with a here-document stays whole."""
    if "<<" in script:
        return [script]
    joined = re.sub(r"\s*\\\n\s*", " ", script)
    return [line for line in (re.sub(r"\s+#.*", "", line) for line in joined.splitlines()) if line]


BLOCKS = [
    (reason, commands_of(script))
    for page in PAGES
    for reason, script in re.findall(
        r"(?:<!-- not run: ([^\n]+) -->\n)?```sh\n(.*?)```", text_of(page), re.DOTALL
    )
]


def test_the_blocks_that_are_not_run_are_these() -> None:
    not_run = [(reason, commands[0]) for reason, commands in BLOCKS if reason]
    for start, why in NOT_RUN.items():
        these = [(reason, first) for reason, first in not_run if reason == why and first.startswith(start)]
        assert these, start
        not_run = [block for block in not_run if block not in these]
    assert not_run == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, trained: Run) -> Path:
    """The checkout's files elsewhere, so that the commands leave nothing in it, with a finished run."""
    folder = tmp_path_factory.mktemp("readme") / "bunryu"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)  # with its time: make compares it
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv/.set-up").touch()  # newer than what it depends on: make has nothing to install
    shutil.copytree(trained.path, folder / "outputs/sample-tiny" / trained.path.name)
    return folder


def bash(script: str) -> bytes:
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], stdout=-1, check=True).stdout


def run(words: list[str], given: bytes, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of a command line of bunryu's, in this process, which has imported torch."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    try:
        return cli.run(words)
    except SystemExit as end:  # --help
        return end.code


def test_every_other_block_runs(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    seen: set[str] = set()
    for reason, commands in BLOCKS:
        variables = "\n".join(command for command in commands if command.startswith("RUN="))
        for command in [] if reason else commands:
            if command in seen or command in variables:
                continue
            seen.add(command)
            *before, line = re.split(r" \| (?=bunryu )", command)
            if line.startswith("bunryu "):
                words = bash(f"{variables}\nprintf '%s\\0' {line}").decode().split("\0")[1:-1]
                assert run(words, bash("".join(before)), monkeypatch) == 0, command
            elif command.startswith("python - <<'END'"):
                exec(command.removeprefix("python - <<'END'").removesuffix("END\n"), {})
            else:
                bash(command)
    assert "make train" in seen


NOT_RUN_COMMANDS = {
    found
    for reason, commands in BLOCKS
    for command in commands
    for found in re.findall(r"\bbunryu [a-z-]+ [^|]+", command)
    if reason and "-sc" not in found
}


@pytest.mark.parametrize("command", sorted(NOT_RUN_COMMANDS))
def test_a_command_that_is_not_run_is_composed_or_has_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, verb, *arguments = shlex.split(command)
    if verb == "train":
        report = Report()
        overrides = [argument for argument in arguments if argument != "-m"]
        found = composed_jobs(argparse.Namespace(overrides=overrides, config_dir=None), report)
        assert found is not None and found[1]
        assert report.problems == {}
        return
    with pytest.raises(SystemExit):
        cli.run([verb, "--help"])
    known = capsys.readouterr().out
    assert [part for part in arguments if part.startswith("-") and f"{part} " not in known] == []


def outside_code(page: str) -> str:
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", outside_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "BENCHMARKS.md", "CHANGELOG.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", outside_code(page)):
        if link.startswith(("http://", "https://", "../../actions/")):
            continue
        name, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and anchor not in anchors(str(target.relative_to(ROOT)))):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)\)", text_of("README.md")))
    assert {"README.ko.md", "CONTRIBUTING.md", "CHANGELOG.md", "BENCHMARKS.md", *DOCS} - linked == set()
    assert "](README.md)" in text_of("README.ko.md")


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


@pytest.mark.parametrize(
    ("page", "heading"),
    [("docs/tutorial-map.md", "## Every argument"), ("README.ko.md", "## 튜토리얼의 인자")],
)
def test_every_argument_of_the_tutorial_is_mapped(page: str, heading: str) -> None:
    section = text_of(page).split(heading)[1].split("\n## ")[0]
    assert " ".join(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == TUTORIAL_ARGUMENTS


def test_the_architecture_names_every_file_and_nothing_else() -> None:
    sections = re.split(r"^### `src/([\w/]+/)`$", text_of("docs/architecture.md"), flags=re.MULTILINE)[1:]
    named = [
        folder + name
        for folder, section in zip(sections[::2], sections[1::2], strict=True)
        for name in re.findall(r"^- `([^`]+)`: ", section, re.MULTILINE)
    ]
    files = [path for path in SOURCE.rglob("*.*") if path.is_file() and "__pycache__" not in path.parts]
    there = [str(path.relative_to(SOURCE)) for path in files if path.name not in ("__init__.py", "py.typed")]
    assert sorted(named) == sorted(there)


def test_the_architectures_table_is_the_one_that_is_tested() -> None:
    tree = ast.parse((ROOT / "tests/test_architecture.py").read_text("utf-8"))
    (value,) = (
        statement.value
        for statement in tree.body
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "MAY_IMPORT"
    )
    assert value is not None
    may_import = {name: set() if ast.unparse(node) == "set()" else ast.literal_eval(node)
                  for name, node in zip(map(ast.literal_eval, value.keys), value.values, strict=True)}  # type: ignore[attr-defined]  # fmt: skip
    rows = re.findall(r"^\| `(\w+)/` \|.*\| ([^|]*) \|$", text_of("docs/architecture.md"), re.MULTILINE)
    written = {name: set(re.findall(r"`(\w+)`", allowed)) for name, allowed in rows}
    assert {name: allowed for name, allowed in written.items() if name != "commands"} == may_import
