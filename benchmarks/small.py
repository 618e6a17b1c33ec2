"""A run of ``model=small`` to predict with: trained for one step, since speed does not ask how well."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from bunryu import cli
from setting import Reviews

LENGTH = 128
LEARNT = 20_000  # reviews the vocabulary is learnt from


def run_of_small(source: Reviews, root: Path, learnt: int = LEARNT) -> Path:
    """Train one step of one batch; return the run directory.

    Args:
        source: the reviews.
        root: an empty folder for corpus, cache and run.
        learnt: reviews to learn the vocabulary from.
    """
    source.copy(root / "nsmc", "train", 0, learnt)
    source.copy(root / "nsmc", "test", 0, 32)
    arguments = [
        "model=small",
        "corpus=nsmc",
        "corpus.validation=test",
        f"corpus.root_dir='{root}'",
        f"cache_dir='{root / 'cache'}'",
        f"output_root='{root / 'outputs'}'",
        f"max_seq_length={LENGTH}",
        "epochs=1",
        "+trainer.max_steps=1",
        "logger=none",
    ]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        code = cli.run(["train", *arguments])
    assert code == 0, "bunryu train failed"
    (run,) = (root / "outputs" / "nsmc-small").iterdir()
    return run


def sentences(source: Reviews, rows: int) -> list[str]:
    """The first test reviews that are not empty."""
    texts = [example.text for example in source.examples("test") if example.text.strip()]
    return (texts * (rows // len(texts) + 1))[:rows]
