"""A network class of the user's own: trained, loaded again where it is allowed, refused where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bunryu.errors import ConfigError, ModelError
from bunryu.inference.opening import open_predictor
from helpers.refusing import edit_json, error_of, refused
from helpers.training import train_in

MODULE = """\
import torch
from transformers import BertForSequenceClassification


class Wide(BertForSequenceClassification):
    def __init__(self, config):
        super().__init__(config)
        self.classifier = torch.nn.Sequential(
            torch.nn.Linear(config.hidden_size, 9), torch.nn.Tanh(), torch.nn.Linear(9, config.num_labels)
        )
        self.post_init()


class Bare(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BUNRYU_ALLOWED_TARGETS", "my_networks")


def test_it_is_loaded_where_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_in(tmp_path / "out", "model.network._target_=my_networks.Wide", "epochs=1")
    said = "my_networks.Wide: predict, serve and evaluate need BUNRYU_ALLOWED_TARGETS, too"
    assert said in (run.path / "train.log").read_text("utf-8")
    for checkpoint in (None, "last"):
        predictor = open_predictor(run.path, checkpoint, device="cpu")
        assert type(predictor.network.model).__name__ == "Wide"  # type: ignore[attr-defined]
        assert predictor.check_parity() <= 1e-6
    metadata = run.path / "model/bunryu.json"
    for name in ("transformers.BertConfig", "my_networks.Bare"):
        edit_json(metadata, lambda facts: {**facts, "network": name})  # noqa: B023
        assert refused(ModelError, open_predictor, run.path).what == f"{name} is no classifier"
    edit_json(metadata, lambda facts: {**facts, "network": "my_networks.Wide"})
    monkeypatch.delenv("BUNRYU_ALLOWED_TARGETS")
    error = refused(ConfigError, open_predictor, run.path)
    assert (error.what, error.where) == ("'my_networks.Wide' may not be called from a config", str(metadata))
    assert "BUNRYU_ALLOWED_TARGETS" in error.fix


def test_what_could_not_be_written_is_refused_before_training(tmp_path: Path) -> None:
    said = error_of(2, "train", f"output_root={tmp_path / 'out'}", "model.network._target_=my_networks.Bare")
    assert "Bare is no PreTrainedModel of transformers: model/ could not be written" in said
    assert not list(tmp_path.glob("out/*/*/checkpoints"))
