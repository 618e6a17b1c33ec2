"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before anything reads them, and for child processes too: no hub, and one thread, since small tensors
# on two threads of a busy machine mostly wait for each other.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from bunryu.runs.run import Run
from bunryu.system import secrets
from helpers.fixes import record_fixes, wrong_fixes
from helpers.training import Train, train_in

record_fixes()

ROOT = Path(__file__).parents[1]


@pytest.fixture
def shared() -> Path:
    """The folder of real corpora and vocabularies beside the checkout; not every machine has it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the checkout: real reviews and KcBERT's vocabulary lie there")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests' caches out of the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def _every_fix_can_be_typed() -> Iterator[None]:
    """After the last test: each ``key=value`` that an error of any test told to type is tried."""
    yield
    wrong = wrong_fixes()
    assert wrong == [], "\n".join(wrong)


@pytest.fixture(autouse=True)
def _own_secrets() -> Iterator[None]:
    """Forget after each test what it read from the environment: it would be masked in all others."""
    yield
    secrets.asked.clear()
    secrets._known.clear()


@pytest.fixture
def bf16_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bfloat16 be computed on any processor: one without its instructions is slow, and no less right."""
    monkeypatch.setattr("bunryu.system.machine.cpu_has_bf16", lambda: True)


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """``train("epochs=1", …)`` trains small in this process and returns the run."""
    return lambda *overrides: train_in(tmp_path, *overrides)


@pytest.fixture(scope="session")
def warm(trained: Run) -> None:
    """Everything is imported that a fork of this process needs to train and to resume."""
    import bunryu.commands.resume  # noqa: F401


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One small run of the default config, to look at and not to change."""
    return train_in(tmp_path_factory.mktemp("outputs"))
