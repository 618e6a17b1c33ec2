"""Which accelerator and precision ``auto`` comes to, and what is said where something is missing."""

from __future__ import annotations

import copy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bunryu import cli
from bunryu.errors import ConfigError
from bunryu.system import machine as machine_
from bunryu.system import ranks
from bunryu.training import accelerators
from bunryu.training import tpu as tpu_module


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with nothing but a processor; ``machine(cards=2, …)`` puts something into it."""

    def put(cards: int = 0, bf16: bool = True, tpu: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        # an emulated bfloat16 is there on any card
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        module = ModuleType("torch_xla")
        module.__spec__ = ModuleSpec("torch_xla", None)
        monkeypatch.setitem(sys.modules, "torch_xla", module if tpu else None)  # type: ignore[arg-type]
        monkeypatch.setattr(tpu_module, "chips", lambda: tpu)

    put()
    return put


def config(name: str = "auto", precision: Any = "auto", devices: Any = 1, **trainer: Any) -> dict[str, Any]:
    node = {"devices": devices, "precision": precision, "strategy": "auto"}
    trainers = {"accelerator": name, **node, **trainer}
    return {"accelerator": {"name": name, **node}, "trainer": trainers, "task": {"autocast": False}}


def settled(given: dict[str, Any]) -> tuple[str, str]:
    """Accelerator and precision, the same for bunryu's node and the trainer's."""
    before = copy.deepcopy(given)
    found = accelerators.resolve_auto(given)
    assert given == before
    names = found["accelerator"]["name"], found["accelerator"]["precision"]
    assert (found["trainer"]["accelerator"], found["trainer"]["precision"]) == names
    return names


def refused(given: dict[str, Any], what: str | None = None) -> tuple[str, str]:
    """Where a config is refused, and how to mend it."""
    with pytest.raises(ConfigError, match=what) as caught:
        accelerators.resolve_auto(given)
    return caught.value.where, caught.value.fix


def test_auto_takes_the_fastest_there_is(machine: Any) -> None:
    assert settled(config()) == ("cpu", "32-true")
    machine(mps=True)
    assert settled(config()) == ("mps", "32-true")
    machine(cards=1, mps=True)
    assert settled(config()) == ("gpu", "bf16-mixed")
    machine(cards=1, tpu=1)
    assert settled(config()) == ("tpu", "32-true")
    assert accelerators.resolve_auto(config())["task"] == {"autocast": True}
    machine(cards=1, bf16=False)  # as a T4
    assert settled(config()) == settled(config("gpu")) == ("gpu", "16-mixed")


def test_what_the_user_set_for_the_trainer_stays_unless_it_contradicts(machine: Any) -> None:
    machine(cards=4)
    found = accelerators.resolve_auto(config() | {"trainer": config(precision="64-true")["trainer"]})
    assert (found["trainer"]["precision"], found["accelerator"]["precision"]) == ("64-true", "bf16-mixed")
    for key, value in (("accelerator", "cpu"), ("devices", 2)):
        given = config("gpu", "32-true")
        given["trainer"][key] = value
        assert refused(given, f"trainer.{key}={value} beside accelerator")[0] == f"trainer.{key}"


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("auto", 16, ("gpu", "16-mixed")),
        ("auto", "16", ("gpu", "16-mixed")),
        ("auto", 32, ("gpu", "32-true")),
        ("auto", "bf16", ("gpu", "bf16-mixed")),
        ("auto", "32-true", ("gpu", "32-true")),  # the tutorial's experiment
        ("gpu", "16-mixed", ("gpu", "16-mixed")),
        ("cuda", "auto", ("gpu", "bf16-mixed")),
        ("xla", "32-true", ("tpu", "32-true")),
    ],
)
def test_what_was_asked_for_stays_under_its_whole_name(
    name: str, precision: Any, expected: tuple[str, str], machine: Any
) -> None:
    machine(cards=1, tpu=int(name == "xla"))
    assert settled(config(name, precision)) == expected


IN_32_BITS = "accelerator.precision=32-true, with accelerator.autocast=true for speed"


@pytest.mark.parametrize(
    ("given", "where", "fix"),
    [
        (config("cpu", "16-mixed"), "precision", "accelerator.precision=bf16-mixed"),
        (config("cpu", "16-true"), "precision", "accelerator.precision=bf16-mixed"),
        (config("tpu", "bf16-mixed"), "precision", IN_32_BITS),
        (config("tpu", "32-true", strategy="ddp"), "strategy", "accelerator.strategy=auto"),
        (config("cpu", "32-true", strategy="ddp_spawn"), "strategy", "accelerator.strategy=auto"),
        (config("gpu", "32-true", strategy="ddp_notebook"), "strategy", "accelerator.strategy=auto"),
        (config("cpu", "32-true", devices="two"), "devices", "accelerator.devices=1"),
        (config("cpu", "32-true", devices=0), "devices", "accelerator.devices=1"),
    ],
)
def test_what_a_device_cannot_do_is_refused(
    given: dict[str, Any], where: str, fix: str, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(cards=1, tpu=1)
    monkeypatch.setattr(machine_, "cpu_has_bf16", lambda: True)
    assert refused(given) == (f"accelerator.{where}", fix)


def test_what_is_not_there_is_refused_with_what_is(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(accelerators.os, "cpu_count", lambda: 6)  # type: ignore[attr-defined]
    hint = "; a TPU needs torch_xla: pip install -c constraints-tpu.txt -e '.[tpu]'"
    for name, fix in (("gpu", ""), ("tpu", hint), ("mps", "")):
        what = f"there is no {name} here that PyTorch .* can use; it found a processor with 6 cores"
        assert refused(config(name), what) == ("accelerator", f"accelerator=cpu{fix}")
    monkeypatch.setattr(torch.version, "cuda", None)
    machine(mps=True)
    _, fix = refused(config("gpu"), "it found Apple's gpu, a processor with")
    assert fix.startswith("accelerator=mps; this PyTorch is built without CUDA: https://")


def test_more_devices_than_there_are(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators.os, "cpu_count", lambda: 2)  # type: ignore[attr-defined]
    assert settled(config(devices=8)) == ("cpu", "32-true")
    what = "9 processes were asked for, the processor has 2 cores"
    assert refused(config(devices=9), what) == ("accelerator.devices", "accelerator.devices=2 or fewer")
    machine(cards=2)
    assert settled(config(devices=2)) == ("gpu", "bf16-mixed")
    what = "3 gpus were asked for, there are 2"
    assert refused(config(devices=3), what) == ("accelerator.devices", "accelerator.devices=2")


def test_one_process_trains_on_one_chip_or_on_all(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.processes_for(accelerators.resolve_auto(config("cpu", devices=2))["accelerator"]) == 2
    machine(tpu=4)
    for chips in (1, 4):
        found = accelerators.resolve_auto(config("tpu", "32-true", chips))
        assert ranks.processes_for(found["accelerator"]) == 1
    what = "8 chips were asked for, there are 4"
    assert refused(config("tpu", "32-true", 8), what) == ("accelerator.devices", "accelerator.devices=4")
    what = "2 of 4 chips were asked for: a run trains on one or on all"
    assert refused(config("tpu", "32-true", 2), what)[1] == "accelerator.devices=4, or 1"
    monkeypatch.setenv("WORLD_SIZE", "4")
    _, fix = refused(config("tpu", "32-true", 4), "4 processes were started: one alone has all chips")
    assert fix.startswith("bunryu train accelerator=tpu accelerator.devices=4, without torchrun")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_on_a_processor_only_where_it_has_it(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_, "cpu_has_bf16", lambda: True)
    assert settled(config("cpu", precision)) == ("cpu", precision)
    monkeypatch.setattr(machine_, "cpu_has_bf16", lambda: False)
    mended = ("accelerator.precision", "accelerator.precision=32-true")
    assert refused(config("cpu", precision), "has no bf16 instructions") == mended


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["accelerator=gpu"], "there is no gpu here"),
        (["accelerator.precision=exact"], "Precision 'exact' is invalid"),
        (["accelerator.strategy=nonsense"], "nonsense"),
        (["+trainer.num_nodes=2"], "one process was started, for 2 machines"),
        (["trainer.devices=2"], "trainer.devices=2 beside accelerator.devices=1"),
    ],
)
def test_the_command_says_what_is_refused_and_leaves_no_directory(
    overrides: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "accelerator=cpu", f"output_root={tmp_path / 'out'}", *overrides]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n  fix:   ") == 1
    assert not (tmp_path / "out").exists()
