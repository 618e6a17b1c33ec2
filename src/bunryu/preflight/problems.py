"""What would stop a run later although its config is right: folders, the Hub, the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from bunryu.config.instantiate import instantiate
from bunryu.errors import BunryuError, ConfigError, DownloadError, first_line
from bunryu.system.files import nearest_existing
from bunryu.system.locations import cache_folder
from bunryu.system.machine import physical_memory
from bunryu.training.early_checks import refused

GIB = 1 << 30


def file_problems(config: Mapping[str, Any]) -> list[BunryuError]:
    """Folders that cannot be written to, and files of the corpus that are missing; without torch."""
    problems = [
        _not_writable("output_root", Path(config["output_root"]).expanduser()),
        _not_writable("cache_dir", cache_folder(config["cache_dir"])),
        refused(lambda: instantiate(config["corpus"], "corpus")),
    ]
    return [problem for problem in problems if problem is not None]


def _not_writable(key: str, root: Path) -> BunryuError | None:
    there = nearest_existing(root)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    said = "cannot be written to" if there.is_dir() else "is no folder"
    return ConfigError(f"{there} {said}", where=f"{key}={root}", fix=f"{key}=<folder>")


def is_here(model: Mapping[str, Any]) -> bool:
    """Whether the model needs no download: none at all, a folder, or weights in the Hub's cache."""
    from bunryu.models.sources import Pretrained
    from bunryu.models.weights import WEIGHTS

    source = instantiate(model, "model")
    if not isinstance(source, Pretrained) or Path(source.location).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    places = (try_to_load_from_cache(source.name, name, revision=_revision(model)) for name in WEIGHTS)
    return any(isinstance(place, str) for place in places)


def check_weights(model: Mapping[str, Any]) -> None:
    """Ask the Hub for a pretrained model's weights if they are not here; DownloadError without an answer."""
    if is_here(model):
        return
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    from bunryu.models.sources import download_fix
    from bunryu.models.weights import WEIGHTS

    name, revision = model["name"], _revision(model)
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        for file in WEIGHTS:
            with contextlib.suppress(EntryNotFoundError):
                get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=5.0)
                return
        raise FileNotFoundError("it has no safetensors weights")
    except Exception as error:  # whatever the Hub's HTTP library raises, which has changed more than once
        what = f"the weights of '{name}' are not cached and cannot be fetched from {constants.ENDPOINT}"
        fix = download_fix(error)
        raise DownloadError(f"{what}: {first_line(error)}", where="model.name", fix=fix) from None


def stand_in(model: Mapping[str, Any], tokenizer: Any, folder: Path) -> dict[str, Any]:
    """The ``model`` node of the same architecture with random weights; DownloadError without config.json."""
    from transformers import AutoConfig

    try:
        revision = _revision(model)
        architecture = AutoConfig.from_pretrained(model["name"], revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        what = f"the config of '{model['name']}': {first_line(error)}"
        raise DownloadError(what, where="model.name") from error
    architecture.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {**model, "name": str(folder)}


def _revision(model: Mapping[str, Any]) -> str | None:
    return cast(str | None, model["network"].get("revision"))


def room_problems(output_root: Path, disk: int, memory: int, at_once: int) -> Iterator[ConfigError]:
    """Refusals if disk or memory is not enough.

    ``disk`` are the bytes that all jobs will write at the most, ``memory`` those that jobs running
    ``at_once`` will have resident; 0 if models lie on a device.
    """
    free, present = shutil.disk_usage(nearest_existing(output_root)).free, physical_memory()
    if disk > free:
        yield ConfigError(
            f"the runs need {disk / GIB:.2f} GiB on disk, {free / GIB:.2f} GiB are free",
            where=f"output_root={output_root}",
            fix="make room; another output_root; or keep_checkpoints=best",
        )
    if present is not None and memory > present:
        yield ConfigError(
            f"the jobs need {memory / GIB:.2f} GiB of memory, the machine has {present / GIB:.2f}",
            where="batch_size and max_seq_length" + (f"; {at_once} jobs at a time" * (at_once > 1)),
            fix="a smaller batch_size with trainer.accumulate_grad_batches; or fewer n_jobs",
        )
