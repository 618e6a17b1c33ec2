"""The house: imports run downwards, and nothing heavy is reached before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bunryu.runs import Run

SOURCE = Path(__file__).parents[1] / "src/bunryu"

FLOORS = [
    {
        "about",
        "attempts",
        "axes",
        "cache",
        "charts",
        "comparison",
        "corpora",
        "corpus",
        "decoding",
        "download",
        "drift",
        "entries",
        "errors",
        "evaluation",
        "examples",
        "files",
        "findings",
        "importance",
        "interruption",
        "ledger",
        "lines",
        "locks",
        "masking",
        "metrics",
        "parquet",
        "pool",
        "predictions",
        "provenance",
        "ranks",
        "reading",
        "records",
        "report_charts",
        "report_page",
        "report_tables",
        "resident",
        "runs",
        "significance",
        "splits",
        "staging",
        "sweep",
        "tables",
        "text",
    },
    {
        "batching",
        "checkpoints",
        "corpus_survey",
        "encoding",
        "forward",
        "model",
        "model_folder",
        "onnx_export",
        "onnx_runtime",
        "opening",
        "predictor",
        "schedules",
        "study",
        "vocabulary",
    },
    {
        *(
            "accelerators",
            "callbacks",
            "clock",
            "datamodule",
            "pruning",
            "run_hooks",
            "task",
            "tpu",
        ),  # training: Lightning
        *("answers", "batcher", "connections", "documents", "guard", "refusal", "service", "web"),  # FastAPI
    },
    {
        "announcement",
        "batch_size",
        "building",
        "checks",
        "composition",
        "config",
        "console",
        "distribution",
        "estimate",
        "experiment",
        "explanation",
        "grid",
        "hydra_node",
        "inspection",
        "launching",
        "overlay",
        "overrides",
        "preflight",
        "preparation",
        "recorded",
        "search",
        "submission",
        "sweep_job",
        "sweep_plan",
        "targets",
        "timing",
    },
    {
        "check",
        "evaluate",
        "export",
        "import_checkpoint",
        "job",
        "join",
        "predict",
        "report",
        "reproduce",
        "resume",
        "serve",
        "train",
    },
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


@pytest.mark.parametrize("door", ["predict", "serve", "export", "import_checkpoint"])
def test_what_follows_training_reaches_neither_lightning_nor_hydra(door: str) -> None:
    reached: set[str] = set()
    waiting = {door}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= own_imports(module) - reached
    packages = {name.split(".")[0] for module in reached for name in imports_of(module)}
    assert "transformers" in packages
    assert packages & FRAMEWORKS == set()


def test_objects_are_made_of_configs_in_one_file() -> None:
    users = [name for name in MODULES if any("hydra.utils" in imported for imported in imports_of(name))]
    assert users == []  # Hydra's own instantiate evaluates what a recorded config holds
    makers = {name for name in MODULES if "instantiate(" in (SOURCE / f"{name}.py").read_text("utf-8")}
    assert makers == {
        "batch_size", "building", "config", "evaluate", "preflight", "preparation", "reproduce",
    }  # fmt: skip


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
        (["train", "-m", "max_seq_length=64,999"], 2),
        (["check", "--help"], 0),
        (["check", "epochs=-2"], 2),
    ],
)
def test_help_configs_and_first_mistakes_load_nothing_heavy(arguments: list[str], code: int) -> None:
    exit_code, loaded = loaded_after(*arguments)
    assert exit_code == code
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["evaluate", "--help"], 0),
        (["predict", "--help"], 0),
        (["report", "--help"], 0),
        (["report", "nowhere"], 2),
        (["serve", "--help"], 0),
        (["export", "--help"], 0),
        (["import-checkpoint", "--help"], 0),
        (["evaluate", "nowhere"], 2),
        (["predict", "nowhere"], 2),
        (["serve", "--host", "0.0.0.0", "nowhere"], 2),
        (["export", "nowhere", "--format", "onnx"], 2),
    ],
)
def test_the_other_verbs_answer_help_and_mistakes_before_torch(arguments: list[str], code: int) -> None:
    exit_code, loaded = loaded_after(*arguments)
    assert exit_code == code
    assert loaded & (HEAVY - {"numpy"} | FRAMEWORKS | {"fastapi", "uvicorn"}) == set()


def test_prediction_loads_neither_lightning_nor_hydra(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"document": "재미있다"}', "utf-8")
    exit_code, loaded = loaded_after(
        "predict", str(trained.path), str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.csv")
    )
    assert exit_code == 0
    assert "transformers" in loaded
    assert loaded & (FRAMEWORKS | {"fastapi", "tensorboard"}) == set()


def test_help_of_the_command_loads_no_framework() -> None:
    _, loaded = loaded_after("--help")
    assert loaded & (TORCH | FRAMEWORKS) == set()
