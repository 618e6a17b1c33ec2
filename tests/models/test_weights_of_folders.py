"""A folder's weights: all of them or none, from safetensors alone; nothing in them is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from bunryu.errors import ConfigError, ModelError
from bunryu.models.weights import check_length, load_classifier, put_weights
from helpers.pickles import Payload
from helpers.refusing import edit_weights, refused
from helpers.small_models import BERT

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
Change = Callable[[dict[str, torch.Tensor]], Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    BertForSequenceClassification(BertConfig(**BERT)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy, to change."""
    return Path(shutil.copytree(written, tmp_path / "model"))


def drop(name: str) -> Change:
    return lambda weights: weights.pop(name)


def put(name: str, *shape: int) -> Change:
    return lambda weights: weights.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop("classifier.bias"), "the weights lack classifier.bias"),
        (drop(QUERY), f"the weights lack {QUERY}"),
        (drop("bert.pooler.dense.weight"), "the weights lack bert.pooler.dense.weight"),
        (put("extra.weight", 3), "the weights hold, and the model has not, extra.weight"),
        (put("bert.encoder.layer.2.output.dense.bias", 16), "bert.encoder.layer.2.output.dense.bias"),
        (put("classifier.bias", 5), "the model cannot be loaded"),
        (put("bert.embeddings.word_embeddings.weight", 7, 16), "the model cannot be loaded"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(folder: Path, change: Change, named: str) -> None:
    edit_weights(folder, change)
    error = refused(ModelError, load_classifier, folder)
    assert named in error.what
    assert error.where == str(folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (drop("classifier.bias"), "the weights lack classifier.bias"),
        (put("extra", 2), "the weights hold, and the model has not, extra"),
        (put("classifier.bias", 4), "classifier.bias has the shape (4,), the model's (2,)"),
        (put("classifier.bias"), "classifier.bias has the shape (), the model's (2,)"),
    ],
)
def test_a_checkpoints_weights_go_in_whole_or_not_at_all(written: Path, change: Change, what: str) -> None:
    model = load_classifier(written)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = {name: tensor + 1 for name, tensor in before.items()}
    change(weights)
    error = refused(ModelError, put_weights, model, weights, Path("a.ckpt"))
    assert (error.what, error.where) == (what, "a.ckpt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_are_not_where_their_file_is_mapped(folder: Path) -> None:
    model, path = load_classifier(folder), folder / "model.safetensors"
    saved = load_file(path)
    saved = {name: tensor.clone() for name, tensor in saved.items()}
    with open(path, "r+b") as file:  # overwritten in place
        file.write(bytes(path.stat().st_size))
    assert {weight.data_ptr() % 64 for weight in model.parameters()} == {0}
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickles_are_refused_and_not_run(folder: Path, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    torch.save({**load_file(folder / "model.safetensors"), "x": Payload(canary)}, folder / name)
    load_classifier(folder)  # beside good weights they are not looked at
    (folder / "model.safetensors").unlink()
    error = refused(ModelError, load_classifier, folder)
    assert error.what == "the weights are a pickle, which can run code when it is loaded"
    assert not canary.exists()
    torch.load(folder / name, weights_only=False)
    assert canary.exists()  # the payload is a real one


@pytest.mark.parametrize("name", ["model.safetensors", "part.bin"])
def test_pickles_under_another_name_or_in_an_index_are_not_run(
    folder: Path, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({key: Payload(canary) for key in weights}, folder / name)
    if name == "part.bin":
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    refused(ModelError, load_classifier, folder)
    assert not canary.exists()


@pytest.mark.parametrize(
    "model",
    [
        BertForSequenceClassification(BertConfig(**BERT)),
        RobertaForSequenceClassification(  # counts its positions from padding_idx + 1
            RobertaConfig(**{**BERT, "max_position_embeddings": 42}, pad_token_id=1)
        ),
    ],
    ids=["bert", "roberta"],
)
def test_lengths_stop_where_the_positions_do(model: Any) -> None:
    check_length(model, 40)
    model(input_ids=torch.full((1, 40), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 41), 5))
    error = refused(ConfigError, check_length, model, 41)
    assert error.what == "max_seq_length=41 is beyond the model's 40 positions"
    assert error.fix == "max_seq_length=40"
