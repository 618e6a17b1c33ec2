"""What several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def shared() -> Path:
    """The folder of real corpora and vocabularies beside the checkout; not every machine has it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the checkout: real reviews and KcBERT's vocabulary lie there")
    return folder
