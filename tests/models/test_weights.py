"""Weights of a checkpoint; anything in it that could run code is refused and not run."""

from __future__ import annotations

import pickle
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import pytest
import torch

from bunryu.errors import ModelError
from bunryu.models.weights import read_weights
from bunryu.runs.run import Run
from helpers.pickles import Payload

STATE = {"model.classifier.bias": torch.tensor([1.0, 2.0]), "other.count": torch.tensor(3)}


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


def in_a_dict(payload: Payload, path: Path, place: str) -> None:
    contents: dict[str, Any] = {"state_dict": dict(STATE), "hyper_parameters": {}, "callbacks": {}}
    contents[place]["model.x"] = payload
    torch.save(contents, path)


def in_torchs_old_format(payload: Payload, path: Path) -> None:
    torch.save({"state_dict": STATE, "x": payload}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    "write",
    [
        partial(in_a_dict, place="hyper_parameters"),
        partial(in_a_dict, place="state_dict"),
        partial(in_a_dict, place="callbacks"),
        in_torchs_old_format,
        lambda payload, path: path.write_bytes(pickle.dumps(payload)),
    ],
    ids=["hyper_parameters", "state_dict", "callbacks", "torch's old format", "a bare pickle"],
)
def test_a_payload_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, write: Any) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    write(Payload(canary), path)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert not canary.exists()
    more = "the checkpoint holds more than tensors and plain values"
    assert caught.value.what.startswith(more if is_zipfile(path) else "the checkpoint is damaged or none")
    assert caught.value.where == str(path)
    with suppress(RuntimeError):  # a bare pickle is no checkpoint
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
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "a.ckpt")
    assert caught.value.what == what


@pytest.mark.parametrize("cut", [0, 1, 100, -100])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": STATE}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    ("name", "reason"), [("none.ckpt", "No such file or directory"), ("", "Is a directory")]
)
def test_what_is_no_file_is_said(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / name)
    assert caught.value.what == f"the checkpoint cannot be read: {reason}"
