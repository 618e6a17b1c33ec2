"""What this machine can train on: ``auto`` made concrete, and a clear answer where something is missing."""

from __future__ import annotations

import copy
import importlib.util
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

from bunryu.errors import ConfigError
from bunryu.system import ranks
from bunryu.system.machine import cpu_has_bf16, processor

NAMES = {"cuda": "gpu", "xla": "tpu"}  # Lightning's other names
PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}  # its short names
CROWD = 4  # processes a core, of which each has a model of its own: trying out is fine, exhausting is not


def resolve_auto(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the accelerator and precision that ``auto`` comes to on this machine.

    Args:
        config: as composed, plain values.

    Raises:
        ConfigError: if what it asks for is not there.
    """
    settled = copy.deepcopy(dict(config))
    accelerator, trainer = settled["accelerator"], settled["trainer"]
    before = dict(accelerator)
    name = NAMES.get(before["name"], before["name"])
    accelerator["name"] = next(iter(available())) if name == "auto" else name
    precision = _precision(accelerator["name"]) if before["precision"] == "auto" else before["precision"]
    accelerator["precision"] = precision
    for key, source in (("accelerator", "name"), ("precision", "precision")):
        if trainer[key] == before[source]:  # as the shipped config has it, and not the user's own
            trainer[key] = accelerator[source]
    for node in (accelerator, trainer):
        node["precision"] = PRECISIONS.get(str(node["precision"]), node["precision"])
    if before["name"] == "auto" and accelerator["name"] == "tpu":
        accelerator["autocast"] = settled["task"]["autocast"] = True  # as the tpu preset has it
    check(settled)
    return settled


def check(config: Mapping[str, Any]) -> None:
    """Refuse an accelerator that is not there, more devices than there are, and what they cannot do.

    Args:
        config: concrete.

    Raises:
        ConfigError: naming what was asked for, what was found, and what works here.
    """
    name, devices, found = _name(config), _devices(config), available()
    if name not in found:
        best = next(iter(found))
        raise ConfigError(
            f"there is no {name} here that PyTorch {torch.__version__} can use; it found {_described(found)}",
            where="accelerator",
            fix="; ".join(filter(None, [f"accelerator={best}", _hint(name)])),
        )
    _check_number(name, devices, found[name])
    _check_abilities(name, str(config["trainer"]["precision"]), str(config["trainer"]["strategy"]))


def _name(config: Mapping[str, Any]) -> str:
    name, trainers = str(config["accelerator"]["name"]), config["trainer"]["accelerator"]
    if NAMES.get(trainers, trainers) != name:
        raise ConfigError(
            f"trainer.accelerator={trainers} beside accelerator={name}",
            where="trainer.accelerator",
            fix=f"accelerator={trainers}, which the trainer follows",
        )
    return name


def _devices(config: Mapping[str, Any]) -> int:
    devices, trainers = config["accelerator"]["devices"], config["trainer"]["devices"]
    if not isinstance(devices, int) or devices < 1:
        raise ConfigError(
            f"{devices!r} is no number of devices", where="accelerator.devices", fix="accelerator.devices=1"
        )
    if trainers != devices:
        raise ConfigError(
            f"trainer.devices={trainers} beside accelerator.devices={devices}",
            where="trainer.devices",
            fix=f"accelerator.devices={trainers}, which the trainer follows",
        )
    return devices


def _check_number(name: str, devices: int, found: int) -> None:
    """Whether there are so many; of chips one or all, since one process has them."""
    where, fix = "accelerator.devices", f"accelerator.devices={found}"
    if name in ("gpu", "tpu", "mps") and devices > found:
        kind = {"gpu": "gpus", "tpu": "chips", "mps": "gpus"}[name]
        raise ConfigError(f"{devices} {kind} were asked for, there are {found}", where=where, fix=fix)
    if name == "cpu" and devices > CROWD * found:
        what = f"{devices} processes were asked for, the processor has {found} cores"
        raise ConfigError(what, where=where, fix=f"{fix} or fewer")
    if name == "tpu" and 1 < devices < found:
        what = f"{devices} of {found} chips were asked for: a run trains on one or on all"
        raise ConfigError(what, where=where, fix=f"{fix}, or 1")
    if name == "tpu" and ranks.world_size() > 1:
        raise ConfigError(
            f"{ranks.world_size()} processes were started: one alone has all chips of a machine",
            where="accelerator",
            fix=f"bunryu train accelerator=tpu {fix}, without torchrun or srun",
        )


def _check_abilities(name: str, precision: str, strategy: str) -> None:
    """Whether the trainer's precision and strategy can work; whether there are such is Lightning's to say."""
    where = "accelerator.precision"
    if name == "tpu" and precision not in ("32-true", "bf16-true"):
        fix = "accelerator.precision=32-true, with accelerator.autocast=true for speed"
        raise ConfigError(f"a tpu knows no precision {precision}", where=where, fix=fix)
    if name == "cpu" and precision.startswith("16"):
        better = "bf16-mixed" if cpu_has_bf16() else "32-true"
        what = f"precision {precision} is for gpus: a processor is slow with it, or not right"
        raise ConfigError(what, where=where, fix=f"accelerator.precision={better}")
    if name == "cpu" and precision.startswith("bf16") and not cpu_has_bf16():
        raise ConfigError(
            f"this processor ({processor()}) has no bf16 instructions: they would be emulated, very slowly",
            where=where,
            fix="accelerator.precision=32-true",
        )
    where, fix = "accelerator.strategy", "accelerator.strategy=auto"
    if name == "tpu" and strategy != "auto":
        what = f"strategy {strategy} is not for a tpu, whose chips one process has"
        raise ConfigError(what, where=where, fix=fix)
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        what = f"strategy {strategy} starts processes that a run cannot be handed to"
        raise ConfigError(what, where=where, fix=fix)


def available() -> dict[str, int]:
    """How many devices of each kind there are, the fastest kind first."""
    found = {}
    if importlib.util.find_spec("torch_xla") is not None:
        from bunryu.training import tpu  # Lightning, which nobody else has to wait for

        if chips := tpu.chips():
            found["tpu"] = chips
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.device_count()
    if torch.backends.mps.is_available():
        found["mps"] = 1
    return {**found, "cpu": os.cpu_count() or 1}


def _precision(name: str) -> str:
    """16 bits for a gpu, with bfloat16's range where the card itself has it; 32 for anything else."""
    if name != "gpu":
        return "32-true"
    # an emulated bfloat16, which is what older cards offer, is slower than 32 bits
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _described(found: Mapping[str, int]) -> str:
    names = {"cpu": f"a processor with {found['cpu']} cores ({platform.machine()})", "mps": "Apple's gpu"}
    return ", ".join(names.get(kind, f"{number} {kind}") for kind, number in found.items())


def _hint(name: str) -> str:
    if name == "gpu" and torch.version.cuda is None:
        return "this PyTorch is built without CUDA: https://pytorch.org/get-started has one"
    return "a TPU needs torch_xla: pip install -c constraints-tpu.txt -e '.[tpu]'" if name == "tpu" else ""
