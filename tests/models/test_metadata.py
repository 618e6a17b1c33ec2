"""bunryu.json: what is written is read; what is damaged, missing or later is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bunryu.data.cleaner import Cleaner
from bunryu.errors import ModelError
from bunryu.models.metadata import ModelMetadata, ParitySample
from helpers.refusing import refused

ABOUT = ModelMetadata(
    Cleaner(allowed="가-힣 ", max_repeats=2),
    64,
    [ParitySample("좋다", None, (0.1, -1e-7)), ParitySample("한 줄\n두 줄", None, (1 / 3, 2.5))],
)
FACTS: dict[str, Any] = {
    "schema": 1,
    "cleaner": {},
    "max_seq_length": 8,
    "parity": [{"text": "좋다", "pair": None, "logits": [0.5, 1]}],
}


def write(folder: Path, facts: Any) -> Path:
    (folder / "bunryu.json").write_text(json.dumps(facts), "utf-8")
    return folder


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    ABOUT.write(tmp_path)
    assert ModelMetadata.read(tmp_path) == ABOUT
    assert json.loads((tmp_path / "bunryu.json").read_text("utf-8"))["schema"] == 1


def test_a_folder_of_before_texts_were_composed_is_given_them_as_they_are(tmp_path: Path) -> None:
    assert ABOUT.composed
    assert not ModelMetadata.read(write(tmp_path, FACTS)).composed


def test_pairs_are_known_by_the_samples(tmp_path: Path) -> None:
    assert not ABOUT.takes_pairs
    ModelMetadata(Cleaner(), 8, [ParitySample("첫째", "", (0.0,))]).write(tmp_path)
    assert ModelMetadata.read(tmp_path).takes_pairs


def test_a_missing_file_and_a_later_schema_are_refused(tmp_path: Path) -> None:
    error = refused(ModelError, ModelMetadata.read, tmp_path)
    assert error.what == "no model folder of bunryu: it has no bunryu.json"
    assert "import-checkpoint" in error.fix
    error = refused(ModelError, ModelMetadata.read, write(tmp_path, {**FACTS, "schema": 99}))
    assert error.what == "bunryu.json was written by a later bunryu"
    assert error.where == str(tmp_path / "bunryu.json")
