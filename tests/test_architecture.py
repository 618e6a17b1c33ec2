"""The house: imports run downwards, and nothing heavy is reached before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/bunryu"

FLOORS = [
    {
        "errors",
        "text",
        "decoding",
        "tables",
        "examples",
        "splits",
        "corpora",
        "download",
        "metrics",
        "provenance",
        "runs",
        "cache",
    },
    {"vocabulary", "schedules", "encoding", "batching", "model", "model_folder"},
    {"datamodule", "task", "callbacks"},
    {"checks", "explanation", "config", "announcement", "experiment"},
    {"train"},
    {"cli"},
]
# Packages a floor may import at all, at the top of a file or inside a function.
TORCH = {"torch", "tokenizers", "transformers", "safetensors"}
FRAMEWORKS = {"pytorch_lightning", "hydra", "omegaconf"}
FORBIDDEN = {0: TORCH | FRAMEWORKS, 1: FRAMEWORKS, 2: {"hydra", "omegaconf"}, 5: TORCH | FRAMEWORKS}


def imports_of(module: str) -> set[str]:
    tree = ast.parse((SOURCE / f"{module}.py").read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "bunryu":
            found |= {f"bunryu.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


MODULES = sorted(path.stem for path in SOURCE.glob("*.py") if path.stem != "__init__")
FLOOR = {name: index for index, floor in enumerate(FLOORS) for name in floor}


def own_imports(module: str) -> set[str]:
    return {name.split(".")[1] for name in imports_of(module) if name.startswith("bunryu.")}


def test_every_module_stands_on_one_floor() -> None:
    assert [name for name in MODULES if name not in FLOOR] == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    upwards = {name for name in own_imports(module) if FLOOR[name] > FLOOR[module]}
    assert upwards == set()


def test_there_is_no_circle() -> None:
    order = list(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_floors_know_only_their_frameworks(module: str) -> None:
    packages = {name.split(".")[0] for name in imports_of(module)}
    assert packages & FORBIDDEN.get(FLOOR[module], set()) == set()


def test_no_door_imports_a_door() -> None:
    doors = FLOORS[4]
    assert {door: own_imports(door) & doors for door in doors} == {door: set() for door in doors}


def test_instantiate_is_called_in_one_file() -> None:
    users = [name for name in MODULES if any("hydra.utils" in imported for imported in imports_of(name))]
    assert users == ["config"]


def loaded_after(*arguments: str) -> tuple[int, set[str]]:
    """Exit code and loaded packages of a command line."""
    program = (
        "import sys\n"
        "from bunryu.cli import run\n"
        "code = 0\n"
        "try:\n"
        "    code = run(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    code = end.code or 0\n"
        "print('LOADED', code, *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    _, code, *names = done.stdout.strip().splitlines()[-1].split()
    return int(code), set(names)


HEAVY = {"torch", "transformers", "pytorch_lightning", "tokenizers", "tensorboard", "numpy"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["train", "--cfg", "job"], 0),
        (["train", "--info", "plugins"], 0),
        (["train", "optimzer.lr=1"], 2),
        (["train", "optimizer.lr=abc"], 2),
        (["train", "epochs=-2"], 2),
        (["train", "+typo=1"], 2),
        (["train", "model=tinny"], 2),
        (["train", "monitor=min val/los"], 2),
        (["train", "max_seq_length=999"], 2),
    ],
)
def test_help_configs_and_first_mistakes_load_nothing_heavy(arguments: list[str], code: int) -> None:
    exit_code, loaded = loaded_after(*arguments)
    assert exit_code == code
    assert loaded & HEAVY == set()


def test_help_of_the_command_loads_no_framework() -> None:
    _, loaded = loaded_after("--help")
    assert loaded & (TORCH | FRAMEWORKS) == set()
