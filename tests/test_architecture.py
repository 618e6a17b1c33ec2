"""The packages: imports run downwards, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.runs.run import Run

SOURCE = Path(__file__).parents[1] / "src/bunryu"

EVERYONE = {"errors", "keys", "metrics"}
# What each package may import of bunryu beside EVERYONE; docs/architecture.md says what each is for.
# Commands may import all of them, and nothing imports commands: cli finds them by name.
MAY_IMPORT: dict[str, set[str]] = {
    "system": set(),
    "data": {"system"},
    "config": {"system"},
    "encoding": {"data", "system"},
    "models": {"encoding", "data", "system"},
    "runs": {"system"},
    "training": {"config", "runs", "models", "encoding", "data", "system"},
    "inference": {"config", "runs", "models", "encoding", "data", "system"},
    "serving": {"inference", "encoding"},
    "sweeps": {"training", "config", "runs", "system"},
    "preflight": {"sweeps", "training", "models", "encoding", "data", "config", "runs", "system"},
    "reports": {"sweeps", "runs", "data", "config", "system"},
}
PACKAGES = {*MAY_IMPORT, "commands"}
TOP = {"__init__", "__main__", "cli", *EVERYONE}

TORCH = {"torch", "tokenizers", "transformers", "safetensors", "onnxruntime", "optuna"}
LIGHTNING = {"pytorch_lightning", "lightning_fabric"}
HYDRA = {"hydra", "omegaconf"}
SERVICE = {"fastapi", "starlette", "uvicorn"}
# Libraries a package knows nothing of, at the top of a file or inside a function.
MAY_NOT_KNOW = {
    "system": TORCH | LIGHTNING | HYDRA | SERVICE,
    "data": TORCH | LIGHTNING | HYDRA | SERVICE,
    "config": SERVICE,
    "encoding": LIGHTNING | HYDRA | SERVICE,
    "models": LIGHTNING | HYDRA | SERVICE,
    "runs": TORCH | LIGHTNING | HYDRA | SERVICE,
    "training": HYDRA | SERVICE,
    "inference": LIGHTNING | HYDRA | SERVICE,
    "serving": LIGHTNING | HYDRA,
    "sweeps": LIGHTNING | SERVICE,
    "preflight": SERVICE,
    "reports": TORCH | LIGHTNING | SERVICE,
}

FILES = sorted(SOURCE.rglob("*.py"))
MODULES = [".".join(("bunryu", *path.relative_to(SOURCE).with_suffix("").parts)) for path in FILES]
PATHS = dict(zip(MODULES, FILES, strict=True))


def imports_of(module: str) -> set[str]:
    """Every module that a file imports, inside functions too; of bunryu the files, not what is in them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(PATHS[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in PATHS else str(node.module) for part in parts}
    return found


def own_imports(module: str) -> set[str]:
    return imports_of(module) & set(MODULES)


def package_of(module: str) -> str:
    return module.split(".")[1]


def in_packages() -> list[str]:
    return [module for module in MODULES if module.count(".") == 2]


def test_every_file_lies_in_a_package_of_the_table() -> None:
    assert {package_of(module) for module in in_packages()} == PACKAGES
    assert {path.stem for path in SOURCE.glob("*.py")} == TOP
    assert [path for path in SOURCE.rglob("__init__.py") if path.read_text("utf-8")] == []


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_the_table_allows(package: str) -> None:
    allowed = MAY_IMPORT[package] | EVERYONE | {package}
    found = {
        (module, other)
        for module in in_packages()
        if package_of(module) == package
        for other in own_imports(module)
        if package_of(other) not in allowed
    }
    assert found == set()


def test_what_everyone_may_import_imports_nothing_of_bunryu() -> None:
    assert {name: own_imports(f"bunryu.{name}") for name in EVERYONE} == {name: set() for name in EVERYONE}


def test_there_is_no_circle() -> None:
    order = list(TopologicalSorter({name: own_imports(name) for name in MODULES}).static_order())
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("package", sorted(MAY_NOT_KNOW))
def test_a_package_knows_only_its_libraries(package: str) -> None:
    found = {
        (module, name)
        for module in in_packages()
        if package_of(module) == package
        for name in {imported.split(".")[0] for imported in imports_of(module)} & MAY_NOT_KNOW[package]
    }
    assert found == set()


def test_no_verb_imports_a_verb() -> None:
    verbs = {f"bunryu.commands.{verb.replace('-', '_')}" for verb in (*cli.VERBS, *cli.INTERNAL_VERBS)}
    assert {verb: own_imports(verb) & verbs for verb in verbs} == {verb: set() for verb in verbs}


@pytest.mark.parametrize("verb", ["predict", "serve", "export", "import_checkpoint"])
def test_what_follows_training_reaches_neither_lightning_nor_hydra(verb: str) -> None:
    reached: set[str] = set()
    waiting = {f"bunryu.commands.{verb}"}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= own_imports(module) - reached
    packages = {name.split(".")[0] for module in reached for name in imports_of(module)}
    assert "transformers" in packages
    assert packages & FRAMEWORKS == set()


def test_objects_are_made_of_configs_by_one_function() -> None:
    users = [name for name in MODULES if any("hydra.utils" in imported for imported in imports_of(name))]
    assert users == []  # Hydra's own instantiate evaluates what a recorded config holds
    users = [name for name in MODULES if "bunryu.config.instantiate" in imports_of(name)]
    assert {package_of(name) for name in users} <= {"config", "training", "preflight", "sweeps", "commands"}


def test_one_file_reads_what_the_system_says_of_itself() -> None:
    readers = {
        module
        for module, path in PATHS.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and str(node.value).startswith(("/proc", "/sys"))
    }
    assert readers == {"bunryu.system.machine"}


FRAMEWORKS = {"pytorch_lightning", "hydra", "omegaconf"}
HEAVY = {"torch", "transformers", "pytorch_lightning", "tokenizers", "tensorboard", "numpy"}


def loaded_after(*lines: str) -> list[tuple[str, int, set[str]]]:
    """Command lines run one after another in a new process: each with its exit code and all loaded so far."""
    program = (
        "import json, sys\n"
        "from bunryu.cli import run\n"
        "for line in sys.argv[1:]:\n"
        "    try:\n"
        "        code = run(line.split())\n"
        "    except SystemExit as end:\n"
        "        code = end.code or 0\n"
        "    loaded = sorted({name.split('.')[0] for name in sys.modules})\n"
        "    print('\\nLOADED', json.dumps([line, code, loaded]), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *lines], capture_output=True, text=True, check=True)
    answers = [line for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    return [(line, code, set(loaded)) for line, code, loaded in map(json.loads, (a[7:] for a in answers))]


def test_help_configs_and_first_mistakes_load_nothing_heavy() -> None:
    lines = {
        "train --help": 0,
        "train --cfg job": 0,
        "train --info plugins": 0,
        "train optimzer.lr=1": 2,
        "train optimizer.lr=abc": 2,
        "train epochs=-2": 2,
        "train +typo=1": 2,
        "train model=tinny": 2,
        "train -m max_seq_length=64,999": 2,
        "check --help": 0,
        "check epochs=-2": 2,
        "report nowhere": 2,
    }
    answers = loaded_after("--help", *lines)
    assert {line: code for line, code, _ in answers} == {"--help": 0, **lines}
    heavy = HEAVY | {"scipy", "rich", "jinja2"}
    assert [(line, loaded & heavy) for line, _, loaded in answers if loaded & heavy] == []
    assert answers[0][2] & (TORCH | FRAMEWORKS) == set()


def test_the_other_verbs_answer_help_and_mistakes_before_torch() -> None:
    lines = {
        **{f"{verb} --help": 0 for verb in ("evaluate", "predict", "serve", "export", "report")},
        "import-checkpoint --help": 0,
        "evaluate nowhere": 2,
        "predict nowhere": 2,
        "serve --host 0.0.0.0 nowhere": 2,
        "export nowhere --format onnx": 2,
        "report nowhere": 2,
    }
    answers = loaded_after(*lines)
    assert {line: code for line, code, _ in answers} == lines
    heavy = HEAVY - {"numpy"} | FRAMEWORKS | {"fastapi", "uvicorn"}
    assert [(line, loaded & heavy) for line, _, loaded in answers if loaded & heavy] == []


def test_prediction_loads_neither_lightning_nor_hydra(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"document": "재미있다"}', "utf-8")
    ((_, code, loaded),) = loaded_after(f"predict {trained.path} {tmp_path}/in.jsonl -o {tmp_path}/out.csv")
    assert code == 0
    assert "transformers" in loaded
    assert loaded & (FRAMEWORKS | {"fastapi", "tensorboard"}) == set()
