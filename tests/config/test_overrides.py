"""A command line with several values for some keys, as its jobs' command lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException

from bunryu.config.compose import as_hydra_reads, composing
from bunryu.config.overrides import Grid, quote
from bunryu.errors import ConfigError


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    with composing() as found:
        yield found


def test_the_last_key_changes_fastest(loader: ConfigLoader) -> None:
    grid = Grid.parse(loader, ["seed=1,2", "epochs=1", "optimizer.lr=1e-3,1e-4"], {})
    assert grid.swept == ["seed", "optimizer.lr"]
    assert grid.jobs() == [
        ["seed=1", "epochs=1", "optimizer.lr=0.001"],
        ["seed=1", "epochs=1", "optimizer.lr=0.0001"],
        ["seed=2", "epochs=1", "optimizer.lr=0.001"],
        ["seed=2", "epochs=1", "optimizer.lr=0.0001"],
    ]


@pytest.mark.parametrize("given", ["seed=5", "+seed=5", "++seed=5"])
def test_the_command_line_stands_above_a_preset(loader: ConfigLoader, given: str) -> None:
    grid = Grid.parse(loader, [given, "epochs=1"], {"seed": "1,2,3", "max_seq_length": "32,64"})
    assert grid.swept == ["max_seq_length"]
    assert grid.jobs() == [[given, f"max_seq_length={length}", "epochs=1"] for length in (32, 64)]


def test_a_key_given_twice_has_its_last_values(loader: ConfigLoader) -> None:
    assert Grid.parse(loader, ["seed=1,2", "seed=3,4"], {}).jobs() == [["seed=3"], ["seed=4"]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("range(1,4)", ["1", "2", "3"]),
        ("choice(1,8)", ["1", "8"]),
        ("shuffle(choice(2,2))", ["2", "2"]),
        ("glob(*)", ["nsmc", "sample", "table"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("'a,b'", ["'a,b'"]),
    ],
)
def test_hydras_grammar(loader: ConfigLoader, values: str, expected: list[str]) -> None:
    key = "corpus" if "glob" in values else "seed"
    assert Grid.parse(loader, [f"{key}={values}"], {}).jobs() == [[f"{key}={value}"] for value in expected]


def test_a_grid_of_an_interval_is_refused(loader: ConfigLoader) -> None:
    grid = Grid.parse(loader, ["optimizer.lr=interval(1e-5,1e-3)"], {})
    with pytest.raises(ConfigError, match="a grid of it would never end") as caught:
        grid.jobs()
    assert caught.value.where == "optimizer.lr"
    assert caught.value.fix.startswith("hydra.sweeper.strategy=optuna")


def test_what_hydra_cannot_read_is_hydras_error(loader: ConfigLoader) -> None:
    with pytest.raises(HydraException):
        Grid.parse(loader, ["seed=range("], {})


def test_nothing_swept_is_one_job(loader: ConfigLoader) -> None:
    grid = Grid.parse(loader, ["seed=1", "~callbacks", "+trainer.max_time=null"], {})
    assert grid.swept == []
    assert grid.jobs() == [["seed=1", "~callbacks=null", "+trainer.max_time=null"]]


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("corpus.text_column=제목,본문", ["제목", "본문"]),
        ("output_root=/my drive/a,/실험 (1)/b", ["/my drive/a", "/실험 (1)/b"]),
        ("corpus.cleaner.allowed=가-힣,가-힣0-9", ["가-힣", "가-힣0-9"]),
        ("corpus.text_column=choice(제목,본문)", ["제목", "본문"]),
        ("corpus.text_column='a,b',제목", ["a,b", "제목"]),
        ("sweep_name=2024_11,2024_12", ["2024_11", "2024_12"]),
        ("corpus.encoding=null,cp949", [None, "cp949"]),
        ("seed=1,2", [1, 2]),
    ],
)
def test_every_value_of_a_sweep_is_one_whatever_its_letters(
    loader: ConfigLoader, written: str, values: list[object]
) -> None:
    (override,) = Grid.parse(loader, [quote(written, sweeps=True)], {}).overrides
    elements = override.sweep_iterator(transformer=lambda value: value)
    assert [getattr(element, "text", element) for element in elements] == values


@pytest.mark.parametrize(
    ("written", "quoted"),
    [
        ("corpus.train=a,b.csv", "corpus.train='a,b.csv'"),
        ("corpus.text_column=0", "corpus.text_column='0'"),
        ("output_root=2024_11_25", "output_root='2024_11_25'"),
        ("+corpus.columns=[제목,본문]", "+corpus.columns=['제목','본문']"),
        ("seed=7", "seed=7"),
        ("cache_dir=null", "cache_dir=null"),
        ("corpus.train=${oc.env:DATA}/a.csv", "corpus.train=${oc.env:DATA}/a.csv"),
    ],
)
def test_what_a_key_of_text_is_given_is_text(written: str, quoted: str) -> None:
    assert quote(written) == quoted


def test_options_may_stand_between_overrides() -> None:
    given = ["epochs=1", "-m", "seed=1,2", "--config-dir", "a=b", "debug=limit", "--cfg", "job"]
    options = ["-m", "--config-dir", "a=b", "--cfg", "job"]
    assert as_hydra_reads(given, sweeps=True) == [*options, "epochs=1", "seed=1,2", "debug=limit"]
