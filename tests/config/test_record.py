"""A job's config is what Hydra would have composed of its command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig

from bunryu.config.compose import composing, shipped_defaults, without_hydra
from bunryu.config.record import SWEEP_KEYS, check_files, located, prepared
from bunryu.errors import ConfigError
from bunryu.sweeps.ledger import identity_of
from bunryu.sweeps.plan import Jobs

MASTER = ["limit_rows=8", "n_jobs=2", "fresh=true", "sweep_name=s"]


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    with composing() as found:
        yield found


def composed(loader: ConfigLoader, *overrides: str) -> DictConfig:
    return loader.load_configuration("train", list(overrides), run_mode=RunMode.RUN)


def alone(loader: ConfigLoader, *overrides: str) -> dict[str, Any]:
    """The config of a run of its own."""
    config = composed(loader, *overrides)
    return prepared(without_hydra(config), shipped_defaults(loader, config.hydra.runtime.choices))


def jobs(loader: ConfigLoader, *overrides: str) -> Jobs:
    return Jobs(loader, loader.load_configuration("train", list(overrides), run_mode=RunMode.MULTIRUN))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer=sgd", "optimizer.lr=0.01"],
        ["model=small", "model.architecture.hidden_dropout_prob=0.3"],
        ["+trainer.max_time=00:01:00:00", "epochs=2"],
        ["++seed=3"],
        ["~logger.tensorboard", "scheduler=linear_warmup"],
        ["experiment=nsmc_small", "corpus=sample", "seed=2"],
        ["corpus.label_names={0: no, 1: yes}"],
        ["logger=none", "seed=null"],
        ["debug=limit"],
    ],
)
def test_a_jobs_config_is_that_of_a_run_of_its_own(loader: ConfigLoader, overrides: list[str]) -> None:
    config = jobs(loader, *MASTER).prepare([*MASTER, *overrides])
    assert config == alone(loader, "limit_rows=8", *overrides)
    assert not set(SWEEP_KEYS) & set(config)


def test_no_job_has_values_of_the_one_before(loader: ConfigLoader) -> None:
    prepare = jobs(loader, *MASTER).prepare
    first = prepare(["limit_rows=8", "optimizer.lr=0.01"])
    prepare(["limit_rows=8", "optimizer.lr=0.02", "max_seq_length=16", "optimizer=sgd"])
    prepare(["limit_rows=8", "optimizer.lr=0.02", "max_seq_length=16"])
    assert prepare(["limit_rows=8", "optimizer.lr=0.01"]) == first
    assert first["max_seq_length"] == 128


def test_how_a_sweep_is_run_is_no_part_of_its_jobs(loader: ConfigLoader) -> None:
    one = jobs(loader, *MASTER).prepare([*MASTER, "seed=1"])
    other = jobs(loader, "limit_rows=8", "n_jobs=1").prepare(["limit_rows=8", "retry=none", "seed=1"])
    assert identity_of(one) == identity_of(other)


def test_what_cannot_work_is_refused(loader: ConfigLoader) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr=-1 is out of range"):
        jobs(loader).prepare(["optimizer.lr=-1"])


def test_a_missing_corpus_file_is_refused(loader: ConfigLoader, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.csv"
    config = jobs(loader).prepare(["corpus=table", f"corpus.train={missing}"])
    check_files([])
    with pytest.raises(ConfigError, match=re.escape(f"corpus.train={missing}")):
        check_files([config])
    missing.write_text("text,label\n", "utf-8")
    check_files([config])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["corpus.train=data/reviews.v2.csv"], "reviews.v2"),
        (["corpus.train=reviews.csv", "corpus.name=mine"], "mine"),
        (["corpus.train=${oc.env:A_FOLDER}/reviews.csv"], "reviews"),
        (["corpus.train=${oc.env:A_FOLDER}"], "table"),  # a name is shown: nothing of a secret is in it
    ],
)
def test_a_table_is_named_after_its_file(
    given: list[str], name: str, loader: ConfigLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_FOLDER", "/sesame/open")
    assert alone(loader, "corpus=table", *given)["corpus"]["name"] == name


def test_what_is_there_is_named_for_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "test", "models/mine/config.json", "tiny/other"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    as_they_are = {
        "train": "${oc.env:DATA}/a.csv",
        "validation": 0.1,
        "test": "test",
        "root_dir": "~/Korpora",
    }
    for name in ("tiny", "beomi/kcbert-base"):  # the first is a folder here, but no model's
        config = {"corpus": as_they_are, "model": {"name": name, "vocabulary_file": None}, "seed": 1}
        assert located(config) == config
    config = {"corpus": {"train": "./a.csv", "test": None}, "model": {"name": "models/mine"}}
    assert located(config) == {
        "corpus": {"train": f"{tmp_path}/a.csv", "test": None},
        "model": {"name": f"{tmp_path}/models/mine"},
    }
    assert config["model"]["name"] == "models/mine"
