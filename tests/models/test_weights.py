"""Weights of checkpoints and folders: all of them or none; what could run code is refused and not run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from bunryu.errors import ConfigError, ModelError
from bunryu.models.weights import check_length, load_classifier, put_weights, read_weights
from bunryu.runs.run import Run
from helpers.pickles import Payload
from helpers.refusing import edit_weights, refused
from helpers.small_models import BERT

STATE = {"model.classifier.bias": torch.tensor([1.0, 2.0]), "other.count": torch.tensor(3)}
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
Change = Callable[[dict[str, torch.Tensor]], Any]


def test_only_entries_below_model_come_out_without_their_prefix(tmp_path: Path) -> None:
    plain = {"epoch": 3, "hyper_parameters": {"lr": 5e-5, "name": "nsmc", "sizes": [1, 2]}}
    torch.save({"state_dict": STATE, **plain}, tmp_path / "a.ckpt")
    weights = read_weights(tmp_path / "a.ckpt")
    assert list(weights) == ["classifier.bias"]
    assert torch.equal(weights["classifier.bias"], torch.tensor([1.0, 2.0]))


def test_a_runs_own_checkpoint_is_read(trained: Run) -> None:
    path = trained.path / "checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)["state_dict"]
    weights = read_weights(path)
    assert "bert.embeddings.word_embeddings.weight" in weights
    assert {f"model.{name}" for name in weights} == {name for name in saved if name.startswith("model.")}
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in weights.items())


FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "torch before 1.6"])


class Call:
    """Unpickling one calls a function."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call[0], self._call[1:]


OBJECTS = [
    Namespace(lr=5e-5, names=["a"]),
    np.float64(0.27),
    Path("/content/nlpbook"),
    defaultdict(list, {"a": [1]}),
    OmegaConf.create({"optimizer": {"lr": [5e-5]}}),
    datetime(2021, 5, 1),
]


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
def test_objects_that_a_trainer_saves_beside_the_weights_are_left_out(tmp_path: Path, thing: Any) -> None:
    state = OrderedDict(STATE)
    # as pytorch-lightning 1.3, and a state_dict as torch makes it
    contents = {
        "epoch": 1,
        "pytorch-lightning_version": "1.3.4",
        "state_dict": state,
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.27), "dirpath": "/content"}},
        "hyper_parameters": thing,
    }
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    torch.save(contents, tmp_path / "a.ckpt")
    weights = read_weights(tmp_path / "a.ckpt")
    assert torch.equal(weights["classifier.bias"], torch.tensor([1.0, 2.0]))


@FORMATS
@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "callbacks"])
@pytest.mark.parametrize(
    ("payload", "read"),
    [
        (lambda canary: Call(os.system, f"touch {canary}"), False),
        (lambda canary: Call(getattr, Call(Path, canary), "touch"), True),
        (Payload, False),  # it calls what getattr gave
        (lambda canary: Call(eval, f"open({str(canary)!r}, 'w')"), True),
    ],
    ids=["os.system", "getattr", "a method", "eval"],
)
def test_a_payload_in_a_checkpoint_is_left_out_or_refused_and_not_run(
    tmp_path: Path, payload: Any, read: bool, place: str, zipped: bool
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    contents: dict[str, Any] = {"state_dict": dict(STATE), "hyper_parameters": {}, "callbacks": {}}
    contents[place]["model.x"] = payload(canary)
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    if read and zipped:
        assert list(read_weights(path)) == ["classifier.bias"]
    else:
        error = refused(ModelError, read_weights, path)
        assert error.what.startswith("the checkpoint holds more than tensors, plain values and objects")
        assert error.where == str(path)
    assert not canary.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(Payload(canary)))
    assert "damaged or none" in refused(ModelError, read_weights, path).what
    assert not canary.exists()
    with suppress(RuntimeError):  # it is no checkpoint
        torch.load(path, weights_only=False)
    assert canary.exists()  # the payload is a real one


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        ({"weights": 1}, "the checkpoint has no state_dict"),
        ([1, 2], "the checkpoint has no state_dict"),
        ({"state_dict": None}, "the checkpoint has no state_dict"),
        ({"state_dict": {}}, "no entry of its state_dict starts with 'model.'"),
        ({"state_dict": {"bert.x": torch.ones(1)}}, "no entry of its state_dict starts with 'model.'"),
        (
            {"state_dict": {"model.x": 3.0, 5: torch.ones(1)}},
            "no entry of its state_dict starts with 'model.'",
        ),
    ],
)
def test_a_checkpoint_without_a_classifier_is_refused(tmp_path: Path, contents: Any, what: str) -> None:
    torch.save(contents, tmp_path / "a.ckpt")
    assert refused(ModelError, read_weights, tmp_path / "a.ckpt").what == what


@pytest.mark.parametrize("cut", [0, 1, 100, -100])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": STATE}, path)
    path.write_bytes(path.read_bytes()[:cut])
    error = refused(ModelError, read_weights, path)
    assert error.where == str(path)
    assert "\n" not in error.what


@FORMATS
def test_whatever_byte_of_a_file_is_wrong_it_is_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    path, random = tmp_path / "a.ckpt", Random(7)
    torch.save({"state_dict": STATE, "x": Namespace(a=1)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(content)
        damaged[random.randrange(len(content))] = random.randrange(256)
        path.write_bytes(damaged)
        with suppress(ModelError):
            read_weights(path)


@pytest.mark.parametrize(
    ("name", "reason"), [("none.ckpt", "No such file or directory"), ("", "Is a directory")]
)
def test_what_is_no_file_is_said(tmp_path: Path, name: str, reason: str) -> None:
    what = refused(ModelError, read_weights, tmp_path / name).what
    assert what == f"the checkpoint cannot be read: {reason}"


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
