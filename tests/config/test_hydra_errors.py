"""Mistakes that Hydra, OmegaConf and YAML find, in our words."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import pytest

from bunryu.config.hydra_errors import OTHER_NAMES
from helpers.refusing import error_of

TUTORIAL_MAP = Path(__file__).parents[2] / "docs" / "tutorial-map.md"
OPTION = "# @package _global_\ncorpus:\n  name: {}\n"


@pytest.mark.parametrize(
    ("content", "line", "fix"),
    [
        (OPTION.format("영화").encode("cp949"), 3, "save it as UTF-8: iconv -f CP949 -t UTF-8 "),
        (
            codecs.BOM_UTF16_LE + OPTION.format("a").encode("utf-16-le"),
            1,
            "save it as UTF-8: iconv -f UTF-16",
        ),
        (OPTION.format("a").replace("  ", "\t").encode(), 3, "spaces instead of tabs"),
        (OPTION.format("[a").encode(), 4, "key: value, each on a line"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "check"])
def test_an_options_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, verb: str, content: bytes, line: int, fix: str
) -> None:
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    error = error_of(2, verb, "--config-dir", tmp_path, "experiment=mine")
    assert f"  where: {path}:{line}\n" in error
    assert f"  fix:   {fix}" in error


def test_every_name_of_the_tutorial_is_a_key_or_leads_to_one() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", TUTORIAL_MAP.read_text("utf-8"), re.M)
    ours = {"max_seq_length", "save_top_k", "monitor", "seed", "overwrite_cache", "epochs", "batch_size"}
    assert len(rows) == 19
    assert set(rows) - ours == {name for name in OTHER_NAMES if name in rows}


@pytest.mark.parametrize("verb", ["train", "check"])
def test_a_name_of_another_library_is_told_as_ours(verb: str) -> None:
    assert "  fix:   optimizer.lr=<value>\n" in error_of(2, verb, "learning_rate=5e-5")
