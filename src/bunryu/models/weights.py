"""Weights and tokenizers read from disk, running nothing that lies in the files."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from bunryu.errors import ConfigError, ModelError, first_line
from bunryu.keys import leaves
from bunryu.models.folder import no_progress_bar
from bunryu.models.tensors import load_tensors
from bunryu.system.machine import available_memory
from bunryu.system.records import damaged, read_bytes, read_checked

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TEXTS = (".jinja", ".json", ".model", ".txt")  # of a tokenizer or a config
MAX_TEXT_BYTES = 64 << 20  # Gemma's tokenizer has 34 MB
MAX_SIZE = 2**21  # of any dimension in config.json
MAX_LAYERS = 1000
LAYERS = re.compile(r"(layers?|groups?|group_num|experts|block_sizes|depths)$")  # each a module to make
TOGETHER = "weights and architecture that belong together"
PREFIX = "model."  # the attribute under which our task, and the tutorial's, keep the classifier


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The classifier's state_dict: the checkpoint's entries below ``model.``, without that prefix.

    Raises:
        ModelError: if the file is missing, damaged, asks for code to be run, or has no such entries.
    """
    checkpoint = _loaded(path, load_tensors)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ModelError("the checkpoint has no state_dict", where=str(path), fix="a Lightning checkpoint")
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(PREFIX) and isinstance(tensor, torch.Tensor)
    }
    if not weights:
        what, fix = (
            f"no entry of its state_dict starts with '{PREFIX}'",
            "a checkpoint of bunryu or of the tutorial's library",
        )
        raise ModelError(what, where=str(path), fix=fix)
    return weights


def load_checkpoint(path: Path, *, mapped: bool = True) -> Any:
    """What a checkpoint of ours holds, its tensors on the CPU; ModelError as in ``read_weights``."""
    return _loaded(path, partial(torch.load, map_location="cpu", weights_only=True, mmap=mapped))


def _loaded(path: Path, load: Callable[[Path], Any]) -> Any:
    try:
        return load(path)
    except OSError as error:
        raise ModelError(f"the checkpoint cannot be read: {error.strerror}", where=str(path)) from None
    except pickle.UnpicklingError:
        what = "the checkpoint holds more than tensors, plain values and objects that can be left out"
        fix = "its state_dict alone: torch.save({'state_dict': task.state_dict()}, FILE)"
        raise ModelError(what, where=str(path), fix=fix) from None
    except Exception as error:  # whatever a damaged archive or pickle ends in
        raise ModelError(f"the checkpoint is damaged or none: {first_line(error)}", where=str(path)) from None


def check_bounds(folder: Path) -> None:
    """Refuse what libraries would work on for hours, or have no memory for: long files, large numbers."""
    size, free = sum(path.stat().st_size for path in folder.glob("*.safetensors")), available_memory()
    if free is not None and size > free:
        what = f"the weights have {size:,} bytes, and {free:,} bytes of memory are free"
        raise ModelError(what, where=str(folder))
    for path in folder.glob("*.*"):
        if path.suffix in TEXTS:
            read_bytes(path, MAX_TEXT_BYTES)
    path = folder / "config.json"
    for key, value in leaves(read_checked(path, dict)) if path.is_file() else ():
        most = MAX_LAYERS if LAYERS.search(key) else MAX_SIZE
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and number > most:
                raise damaged(path, f"{key} is {number}, which is more than {most}")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.

    Raises:
        ModelError: if it is not there, damaged, or has no Rust implementation.
    """
    check_bounds(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust library raises plain Exceptions for damaged files
        raise ModelError(f"the tokenizer cannot be loaded: {first_line(error)}", where=str(folder)) from error
    return check_tokenizer(tokenizer, str(folder))


def check_tokenizer(tokenizer: Any, where: str) -> Any:
    """The tokenizer; refused if it has no Rust implementation, vocabulary or padding token."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError("the tokenizer has no Rust implementation", where=where)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes it of nothing, silently
        fix = "add its vocab.txt or tokenizer.json"
        raise ModelError("the tokenizer has no vocabulary", where=where, fix=fix)
    if tokenizer.pad_token_id is None:
        token = [*tokenizer.all_special_tokens, "<a token of its vocabulary>"][0]  # the mask hides it
        fix = f"\"+model.tokenizer_factory.pad_token='{token}'\", or pad_token in tokenizer_config.json"
        raise ModelError("the tokenizer has no padding token", where=where, fix=fix)
    return tokenizer


def fit_token_types(tokenizer: Any, config: Any) -> Any:
    """The tokenizer, made to give no token types if the model has none or one, for saving too."""
    if getattr(config, "type_vocab_size", 0) < 2:
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
    return tokenizer


def load_classifier(
    folder: Path, family: Any = AutoModelForSequenceClassification, checkpoint: Path | None = None
) -> Any:
    """The classifier of a folder, from safetensors only, in the precision it was saved in.

    ``family`` is its class, if that is not transformers' own; a ``checkpoint``'s weights are taken instead.

    Raises:
        ModelError: if weights are missing, pickled, damaged, or not those that config.json describes.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if checkpoint is not None:
        return _with_weights_of(checkpoint, folder, family, local)
    if not any((folder / name).is_file() for name in WEIGHTS):
        refuse_pickles(folder)
        raise ModelError("no weights", where=str(folder), fix="a folder with model.safetensors")
    try:
        with no_progress_bar():
            model, report = family.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **local
            )
    except Exception as error:  # a damaged config.json or index ends anywhere in transformers
        raise ModelError(f"the model cannot be loaded: {first_line(error)}", where=str(folder)) from error
    _refuse_misfits(report["missing_keys"], report["unexpected_keys"], folder)
    return in_own_memory(model)


def _with_weights_of(checkpoint: Path, folder: Path, family: Any, local: Mapping[str, Any]) -> Any:
    weights = read_weights(checkpoint)
    try:
        config = (getattr(family, "config_class", None) or AutoConfig).from_pretrained(folder, **local)
        auto = getattr(family, "from_config", None)
        make = partial(auto, config, trust_remote_code=False) if auto else partial(family, config)
        with torch.device("meta"):  # a config.json may be anybody's: it takes no memory before it fits
            shell = make()
    except Exception as error:  # as above
        raise ModelError(f"the model cannot be made: {first_line(error)}", where=str(folder)) from error
    _refuse_other_shapes(shell, weights, checkpoint)
    model = make()
    model.load_state_dict(weights)
    return model


def put_weights(model: Any, weights: Mapping[str, torch.Tensor], source: Path) -> None:
    """Load a checkpoint's weights into a classifier, all of them or none; raises as below."""
    _refuse_other_shapes(model, weights, source)
    model.load_state_dict(weights)


def _refuse_other_shapes(model: Any, weights: Mapping[str, torch.Tensor], source: Path) -> None:
    """Refuse weights of another model, naming the first that is missing, left over or of another shape."""
    own = model.state_dict()
    _refuse_misfits(set(own) - set(weights), set(weights) - set(own), source)
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            what = f"{name} has the shape {tuple(tensor.shape)}, the model's {tuple(own[name].shape)}"
            raise ModelError(what, where=str(source), fix=TOGETHER)


def _refuse_misfits(missing: Iterable[str], left_over: Iterable[str], where: Path) -> None:
    for names, what in ((sorted(missing), "lack"), (sorted(left_over), "hold, and the model has not,")):
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            raise ModelError(f"the weights {what} {names[0]}{more}", where=str(where), fix=TOGETHER)


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose weights could run code when they are loaded."""
    if any((folder / name).is_file() for name in PICKLES):
        fix = "convert them to model.safetensors on a machine you can spare"
        what = "the weights are a pickle, which can run code when it is loaded"
        raise ModelError(what, where=str(folder), fix=fix)


def check_vocabulary(tokenizer: Any, embeddings: int, where: str) -> None:
    """Refuse a tokenizer with more tokens than the model has embeddings."""
    if len(tokenizer) > embeddings:
        what = f"the tokenizer has {len(tokenizer)} tokens, the model's embedding {embeddings}"
        raise ModelError(what, where=where, fix="vocabulary and weights that belong together")


def in_own_memory(model: Any) -> Any:
    """The model with its weights copied out of the file that transformers maps them from.

    In the file their addresses follow from the length of its header, and on some processors the last bits
    of a product depend on addresses; a copy starts at a whole cache line, as in a model that was trained.
    And a file overwritten in place no longer changes the model.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def check_length(model: Any, max_seq_length: int) -> None:
    """Refuse a length beyond the model's positions, with the longest that works."""
    positions = positions_of(model)
    if positions is not None and max_seq_length > positions:
        what = f"max_seq_length={max_seq_length} is beyond the model's {positions} positions"
        raise ConfigError(what, where="max_seq_length", fix=f"max_seq_length={positions}")


def positions_of(model: Any) -> int | None:
    """The longest sequence the model takes; None if it has no such limit."""
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return positions - int(module.padding_idx) - 1  # RoBERTa and its kin count from padding_idx + 1
    return positions
